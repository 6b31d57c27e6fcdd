"""Finding features by words: in names, descriptions, entities, sources, rules, tags and owners."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from noria.features.declarations import FeatureView
from noria.features.on_demand import OnDemand
from noria.features.telling import rule_of

__all__ = ["Hit", "SearchResult", "search_features"]

_WORD = re.compile(r"[^\W_]+")
_VIEW, _FEATURE, _TAG, _ENTITY, _TOLD, _SOURCE, _OWNER, _RULE = 10.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0
_WHOLE, _BEGUN, _INSIDE = 1.0, 0.6, 0.3
_MOST_MEANT, _MOST_WORDS = 5, 20


@dataclass(frozen=True, slots=True)
class Hit:
    """A view or on-demand feature that was found, and which of its columns the words are about."""

    found: FeatureView | OnDemand
    features: tuple[str, ...]
    score: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found, the best first; where that is nothing, words that may have been meant."""

    hits: tuple[Hit, ...]
    meant: tuple[str, ...]


def search_features(
    declared: Iterable[FeatureView | OnDemand],
    text: str = "",
    *,
    tags: Collection[str] = (),
    owner: str | None = None,
) -> SearchResult:
    """Find views and on-demand features in which every word of `text` is found, with all `tags`, of `owner`.

    A word is found whole, as a beginning, or inside of another one, and counts less in that order; one in a
    name counts more than one in a description, and that more than one in a rule. Case does not count.
    """
    every = sorted(declared, key=lambda each: each.name)
    wanted = _words(text) or list(filter(None, [text.strip()]))  # of signs alone: such are sought
    hits = []
    for each in every:
        if not set(tags) <= set(each.tags) or owner not in (None, each.owner):
            continue
        fields = list(_fields(each))
        scores = [max((_score(word, *one) for one in fields), default=0.0) for word in wanted]
        if all(scores):
            hits.append(Hit(each, _features(each, wanted), sum(scores)))
    hits.sort(key=lambda each: (-each.score, each.found.name))
    return SearchResult(tuple(hits), () if hits else _meant(every, wanted, tags, owner))


def _features(declared: FeatureView | OnDemand, wanted: Sequence[str]) -> tuple[str, ...]:
    if isinstance(declared, OnDemand):
        told = dict.fromkeys(declared.outputs, "")
    else:
        names = [each.name for each in declared.spec().features]
        told = {name: declared.description_of(name) or "" for name in names}
    return tuple(
        name
        for name, description in told.items()
        if any(_score(word, {*_words(name), *_words(description)}, 1.0) for word in wanted)
    )


def _fields(declared: FeatureView | OnDemand) -> Iterator[tuple[Collection[str], float]]:
    """Give words with their weight."""
    yield {declared.name.lower(), *_words(declared.name)}, _VIEW
    for tag in declared.tags:
        yield {tag.lower(), *_words(tag)}, _TAG
    yield _words(declared.description or ""), _TOLD
    yield _words(declared.owner or ""), _OWNER
    yield from _of_on_demand(declared) if isinstance(declared, OnDemand) else _of_view(declared)


def _of_on_demand(feature: OnDemand) -> Iterator[tuple[Collection[str], float]]:
    for output in feature.outputs:
        yield {output.lower(), *_words(output)}, _FEATURE
    for name in feature.spec().inputs:
        yield {name.lower(), *_words(name)}, _SOURCE


def _of_view(view: FeatureView) -> Iterator[tuple[Collection[str], float]]:
    spec = view.spec()
    for feature in spec.features:
        yield {feature.name.lower(), *_words(feature.name)}, _FEATURE
        yield _words(view.description_of(feature.name) or ""), _TOLD
        yield _words(rule_of(feature.aggregation)), _RULE
    yield [word for each in spec.entity for word in (each.lower(), *_words(each))], _ENTITY
    yield {spec.source.lower(), *_words(spec.source)}, _SOURCE


def _score(word: str, words: Collection[str], weight: float) -> float:
    if word in words:
        return weight * _WHOLE
    if any(each.startswith(word) for each in words):
        return weight * _BEGUN
    if (len(word) >= 3 or not word.isascii()) and any(word in each for each in words):
        return weight * _INSIDE
    return 0.0


def _meant(
    declared: Sequence[FeatureView | OnDemand],
    wanted: Sequence[str],
    tags: Collection[str],
    owner: str | None,
) -> tuple[str, ...]:
    known = sorted({word for each in declared for some, _ in _fields(each) for word in some if len(word) > 2})
    near = [each for word in wanted[:_MOST_WORDS] for each in get_close_matches(word, known, n=2, cutoff=0.7)]
    near = [each for each in near if each not in wanted]
    known_tags = {tag for each in declared for tag in each.tags}
    near += [each for tag in tags for each in get_close_matches(tag, sorted(known_tags - {tag}), n=2)]
    if owner is not None:
        owners = {each.owner for each in declared if each.owner} - {owner}
        near += get_close_matches(owner, sorted(owners), n=2)
    return tuple(dict.fromkeys(near))[:_MOST_MEANT]


def _words(text: str) -> list[str]:
    """Give the words of a text, in the form that says the same however it was typed."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
