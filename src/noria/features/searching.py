"""Finding features by words: in names, descriptions, entities, sources, rules, tags and owners."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from noria.features.declarations import FeatureView
from noria.features.telling import rule_of

__all__ = ["Hit", "SearchResult", "search_views"]

_WORD = re.compile(r"[^\W_]+")
_VIEW, _FEATURE, _TAG, _ENTITY, _TOLD, _SOURCE, _OWNER, _RULE = 10.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0
_WHOLE, _BEGUN, _INSIDE = 1.0, 0.6, 0.3
_MOST_MEANT = 5


@dataclass(frozen=True, slots=True)
class Hit:
    """A view that was found, and which of its features the words are about."""

    view: FeatureView
    features: tuple[str, ...]
    score: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found, the best first; where that is nothing, words that may have been meant."""

    hits: tuple[Hit, ...]
    meant: tuple[str, ...]


def search_views(
    views: Iterable[FeatureView], text: str = "", *, tags: Collection[str] = (), owner: str | None = None
) -> SearchResult:
    """Find views in which every word of `text` is found, with all `tags`, of `owner`.

    A word is found whole, as a beginning, or inside of another one, and counts less in that order; one in a
    name counts more than one in a description, and that more than one in a rule. Case does not count.
    """
    every = sorted(views, key=lambda each: each.name)
    wanted = _words(text)
    hits = []
    for view in every:
        if not set(tags) <= set(view.tags) or owner not in (None, view.owner):
            continue
        fields = list(_fields(view))
        scores = [max((_score(word, *each) for each in fields), default=0.0) for word in wanted]
        if all(scores):
            hits.append(Hit(view, _features(view, wanted), sum(scores)))
    hits.sort(key=lambda each: (-each.score, each.view.name))
    return SearchResult(tuple(hits), () if hits else _meant(every, wanted, tags, owner))


def _features(view: FeatureView, wanted: Sequence[str]) -> tuple[str, ...]:
    found = []
    for feature in view.spec().features:
        told = view.description_of(feature.name) or ""
        words = {*_words(feature.name), *_words(told)}
        if any(_score(word, words, 1.0) for word in wanted):
            found.append(feature.name)
    return tuple(found)


def _fields(view: FeatureView) -> Iterator[tuple[Collection[str], float]]:
    """Give words with their weight."""
    spec = view.spec()
    yield {view.name.lower(), *_words(view.name)}, _VIEW
    for feature in spec.features:
        yield {feature.name.lower(), *_words(feature.name)}, _FEATURE
        yield _words(view.description_of(feature.name) or ""), _TOLD
        yield _words(rule_of(feature.aggregation)), _RULE
    for tag in view.tags:
        yield {tag.lower(), *_words(tag)}, _TAG
    yield [word for each in spec.entity for word in (each.lower(), *_words(each))], _ENTITY
    yield _words(view.description or ""), _TOLD
    yield {spec.source.lower(), *_words(spec.source)}, _SOURCE
    yield _words(view.owner or ""), _OWNER


def _score(word: str, words: Collection[str], weight: float) -> float:
    if word in words:
        return weight * _WHOLE
    if any(each.startswith(word) for each in words):
        return weight * _BEGUN
    if len(word) >= 3 and any(word in each for each in words):
        return weight * _INSIDE
    return 0.0


def _meant(
    views: Sequence[FeatureView], wanted: Sequence[str], tags: Collection[str], owner: str | None
) -> tuple[str, ...]:
    words = {word for view in views for some, _ in _fields(view) for word in some if len(word) > 2}
    near = [each for word in wanted for each in get_close_matches(word, sorted(words), n=2, cutoff=0.7)]
    near = [each for each in near if each not in wanted]
    known_tags = {each for view in views for each in view.tags}
    near += [each for tag in tags for each in get_close_matches(tag, sorted(known_tags - {tag}), n=2)]
    if owner is not None:
        owners = {view.owner for view in views if view.owner} - {owner}
        near += get_close_matches(owner, sorted(owners), n=2)
    return tuple(dict.fromkeys(near))[:_MOST_MEANT]


def _words(text: str) -> list[str]:
    return [each.lower() for each in _WORD.findall(text)]
