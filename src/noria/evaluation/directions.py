"""Whether more of a metric is better, as far as its name tells, and between what it lies."""

import re

__all__ = ["find_bounds", "find_direction"]

_PARTS = re.compile(r"[a-z]+|[0-9]+")
_NAMES = re.compile(r"[a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NEGATED = frozenset({"neg", "negative", "negated"})
_LOWER = frozenset(
    _NAMES.findall(
        "loss losses logloss error err errors rmse mse mae mape smape rmsle msle wape mase medae crps brier "
        "deviance nll perplexity ppl bpc entropy crossentropy distance divergence kl regret wer cer eer "
        "latency time seconds duration cost price misses fpr fnr ece hinge pinball rss bias aic bic "
        "staleness memory bytes fid bouldin"
    )
)
_HIGHER = frozenset(
    _NAMES.findall(
        "auc auroc auprc aucpr gini accuracy acc precision recall sensitivity specificity f1 fbeta fscore "
        "roc prc map ndcg mrr kappa mcc iou dice jaccard bleu rouge meteor gain lift "
        "profit revenue reward return returns correlation pearson spearman likelihood loglikelihood psnr "
        "ssim hits tpr tnr throughput silhouette coverage elbo evidence purity nmi ari winrate"
    )
)
_SKILL = frozenset({"d2", "r2", "skill"})  # shares explained, of whatever else the name says
_WEAK = frozenset({"f", "score", "scores", "value"})  # higher is better, unless another word says what it is
_SHARES = frozenset(
    _NAMES.findall(
        "auc auroc auprc aucpr accuracy acc precision recall sensitivity specificity f1 fbeta fscore map "
        "ndcg mrr iou dice jaccard tpr tnr fpr fnr brier ece eer winrate purity nmi"
    )
)


def find_direction(metric: str) -> tuple[bool, str] | None:
    """Guess from its name whether more of a metric is better; gives that and the word that says so.

    The last word that is known counts, `score` and `value` only if no other is; `neg_` in front turns it
    round, as in scikit-learn.

    Examples
    --------
    >>> find_direction("val/log_loss"), find_direction("test_AUC")
    ((False, 'loss'), (True, 'auc'))
    >>> find_direction("neg_mean_squared_error"), find_direction("answer")
    ((True, 'neg error'), None)
    >>> find_direction("brier_score"), find_direction("d2_log_loss_score"), find_direction("quality_score")
    ((False, 'brier'), (True, 'd2'), (True, 'score'))
    """
    parts = _words(metric)
    for known in (_SKILL, _HIGHER | _LOWER, _WEAK):
        place = next((at for at in range(len(parts) - 1, -1, -1) if parts[at] in known), None)
        if place is not None:
            word = parts[place]
            is_more = word not in _LOWER
            negation = next((each for each in parts[:place] if each in _NEGATED), None)
            return (is_more, word) if negation is None else (not is_more, f"{negation} {word}")
    return None


def find_bounds(metric: str) -> tuple[float, float] | None:
    """Give between what a metric lies, where its name tells for certain.

    Examples
    --------
    >>> find_bounds("auc"), find_bounds("rmse")
    ((0.0, 1.0), None)
    """
    parts = _words(metric)
    return (0.0, 1.0) if parts and parts[-1] in _SHARES and not _NEGATED & {*parts} else None


def _words(metric: str) -> list[str]:
    """Give the words of a name: `valLogLoss`, `val_log_loss` and `val/log-loss` have the same."""
    words = _PARTS.findall(_CAMEL.sub(" ", metric).lower())
    found: list[str] = []
    for word in words:  # "f", "1" is one word, "loss", "2" are two
        if word.isdecimal() and found and f"{found[-1]}{word}" in _HIGHER | _SKILL:
            found[-1] += word
        else:
            found.append(word)
    return found
