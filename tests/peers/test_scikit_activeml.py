"""The same inputs to scikit-activeml, where it follows the paper; where it does not, the test says how it differs.

Optional: `pip install alfm[peers]`. Its random tie breaking is kept out by inputs without ties.
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reference.badge import badge, gradients
from reference.bald import bald
from reference.batchbald import joint_information
from reference.falcun import falcun
from strategies.factory import Seen, clusters, make_query, seen

from alfm.acquisition import bald as bald_score
from alfm.geometry.max_coverage import Cover, CoverState, purity_distances, purity_radius
from alfm.posteriors import Laplace
from alfm.strategies import typiclust
from alfm.strategies.badge import Badge
from alfm.strategies.batchbald import batchbald
from alfm.strategies.clue import Clue
from alfm.strategies.coreset import Coreset
from alfm.strategies.falcun import Falcun
from alfm.strategies.maxherding import MaxHerding
from alfm.strategies.probcover import ProbCover
from alfm.strategies.query import Query
from alfm.strategies.typiclust import TypiClust

pool = pytest.importorskip("skactiveml.pool")
SkactivemlClassifier = pytest.importorskip("skactiveml.base").SkactivemlClassifier


def labels(query: Query) -> np.ndarray:
    """(N,) float, NaN where unlabelled, as scikit-activeml wants it."""
    y = np.full(query.pool.N, np.nan)
    y[query.labelled(0)] = query.labels_of(0)
    return y


def raw(query: Query) -> np.ndarray:
    return query.pool.features.numpy()


def unit(query: Query) -> np.ndarray:
    return raw(query) / np.linalg.norm(raw(query), axis=1, keepdims=True)


class Fitted(SkactivemlClassifier):
    """Our head's predictions, given by row number: X holds the row in its first column."""

    def __init__(self, view: Seen | None = None, embed: bool = False):
        super().__init__(classes=None if view is None else list(range(view.p.shape[1])), missing_label=np.nan)
        self.view, self.embed = view, embed

    def fit(self, X, y, sample_weight=None):
        return self

    def predict_proba(self, X):
        rows = np.asarray(X)[:, 0].astype(int)
        return (self.view.p[rows], self.view.phi[rows]) if self.embed else self.view.p[rows]


def numbered(query: Query) -> np.ndarray:
    return np.arange(query.pool.N, dtype=float)[:, None]


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_coreset(metric: str) -> None:
    query = make_query()
    expected = pool.CoreSet(random_state=0, metric="euclidean" if metric == "l2" else metric)
    picks = expected.query(raw(query), labels(query), batch_size=25)
    assert Coreset(metric=metric).select(query, 25)[0].tolist() == list(picks)


@pytest.mark.parametrize("gamma", [1.0, 0.25])
def test_maxherding(gamma: float) -> None:
    """Its targets are the candidates alone, ours the whole pool: a labelled target is at its best already, so the
    sequences agree. Its default gamma is 1 / D; width 1 of the paper is gamma = 1."""
    query = make_query()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picks = pool.MaxHerding(metric_dict={"gamma": gamma}, random_state=0).query(
            raw(query), labels(query), batch_size=10
        )
    assert MaxHerding(gamma**-0.5).select(query, 10)[0].tolist() == list(picks)


@pytest.mark.parametrize("delta", [0.4, 0.5])
def test_probcover(delta: float) -> None:
    """Its balls are closed (<=), ours open; no distance here equals delta. Equal degrees are chosen among at random
    there, so each of its picks is checked to be one of ours: what a ball adds is the same number, pick by pick."""
    query = make_query()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses the purity that a given radius never had
        picks, degrees = pool.ProbCover(deltas=[delta], random_state=0).query(
            unit(query), labels(query), batch_size=12, return_utilities=True
        )
    cover = Cover(query.pool.unit, delta)
    state, free = CoverState(cover), query.available[0].numpy().copy()
    state.add(query.labelled(0))
    for pick, theirs in zip(picks, degrees, strict=True):
        np.testing.assert_array_equal(state.degrees.numpy()[free], theirs[free])
        free[pick] = False
        state.add(torch.tensor([pick]))
    ours = ProbCover(delta).select(query, 12)[0].tolist()
    first_tie = next(i for i, d in enumerate(degrees) if np.sum(d == np.nanmax(d)) > 1)
    assert first_tie > 0
    assert ours[:first_tie] == list(picks[:first_tie])


def test_probcover_radius() -> None:
    """It tries ten radii 0.2, 0.4, ...; ours is the exact largest, so it is at least theirs for the same clusters."""
    query = make_query()
    view = seen(query)
    pseudo = view.p.argmax(1)
    given = SimpleNamespace(labels=pseudo)

    class Given:
        def __init__(self, n_clusters: int = 4):
            pass

        def fit_predict(self, X):
            return given.labels

    theirs = pool.ProbCover(n_classes=4, deltas=np.arange(0.02, 2, 0.02), cluster_algo=Given, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.query(unit(query), labels(query))
    exact = purity_radius(purity_distances(query.pool.unit, torch.from_numpy(pseudo)), 0.95)
    assert theirs.delta_max_ <= exact < theirs.delta_max_ + 0.02 + 1e-9


def test_typicality_and_how_typiclust_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same clusters: one pick per cluster without labels, largest first, agrees while k is below half a cluster.

    It differs in the neighbours (min(k, size - 1), not min(k, size // 2)), gives up clusters with labels altogether,
    and picks from all when clusters run out; ours goes round again, as the authors' code does.
    """
    x, _ = clusters(120, 6, 5, spread=0.7)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)  # it does not normalise
    assignment = np.repeat(np.arange(6), [35, 28, 22, 15, 12, 8])
    query = make_query(x=x, y=np.arange(120) % 4, C=4, rows=[[0, 1]])
    monkeypatch.setattr(typiclust, "cluster_pool", lambda query, counts, up_to: [torch.from_numpy(assignment)])

    class Given:
        def __init__(self, n_clusters: int = 6):
            pass

        def fit_predict(self, X):
            return assignment

    theirs = pool.TypiClust(k=4, cluster_algo=Given, random_state=0).query(x, labels(query), batch_size=5)
    ours = TypiClust(neighbours=4).select(query, 6)[0].tolist()
    assert ours[:5] == list(theirs)
    assert assignment[ours].tolist() == [1, 2, 3, 4, 5, 0]


class Members(SkactivemlClassifier):
    """A committee of given predictions."""

    def __init__(self, p: np.ndarray | None = None):
        super().__init__(classes=None if p is None else list(range(p.shape[2])), missing_label=np.nan)
        self.p = p

    def fit(self, X, y, sample_weight=None):
        return self

    def predict_proba(self, X):
        return self.p.mean(0)[np.asarray(X)[:, 0].astype(int)]

    def __sklearn_is_fitted__(self):
        return True

    def sample_proba(self, X):
        return self.p[:, np.asarray(X)[:, 0].astype(int)].copy()


def draws(query: Query, passes: int = 8) -> tuple[np.ndarray, torch.Tensor]:
    logits = query.draws(Laplace(passes=passes)).logits(slice(0, query.pool.N), query.pool.features, 0)
    return torch.softmax(logits, 2).numpy(), logits


def test_bald() -> None:
    """Its utilities are sums over members divided alike: equal to ours."""
    query = make_query(N=50)
    p, logits = draws(query)
    peer = pool.GreedyBALD(sample_predictions_method_name="sample_proba", random_state=0)
    picks, utilities = peer.query(
        numbered(query), labels(query), Members(p), fit_ensemble=False, batch_size=10, return_utilities=True
    )
    free = query.available[0].numpy()
    np.testing.assert_allclose(utilities[0][free], bald_score(logits).numpy()[free], atol=1e-6)
    np.testing.assert_allclose(utilities[0][free], bald(p)[free], atol=1e-6)
    assert sorted(np.argsort(-bald_score(logits).numpy()[free])[:10]) == sorted(
        np.searchsorted(np.flatnonzero(free), picks)
    )


def test_batchbald() -> None:
    """While configurations are listed (n_MC_samples >= C^picks) its greedy batch is ours."""
    query = make_query(N=40, C=3)
    p, logits = draws(query)
    peer = pool.BatchBALD(n_MC_samples=3**4, sample_predictions_method_name="sample_proba", random_state=0)
    picks = list(peer.query(numbered(query), labels(query), Members(p), fit_ensemble=False, batch_size=4))
    free = np.flatnonzero(query.available[0].numpy())
    log_p = torch.log_softmax(logits[:, torch.from_numpy(free)], 2)
    ours = free[batchbald(log_p, 4, np.random.default_rng(0)).numpy()].tolist()
    assert ours == picks
    assert joint_information(p, ours) == pytest.approx(joint_information(p, picks))


def test_badge() -> None:
    """Both start with the largest gradient. Then it draws with min(D^2, |g|^2): the origin counts as a centre there,
    which neither the paper's algorithm 1 nor k-means++ has. Apart from that the probabilities agree."""
    query = make_query(N=40)
    view = seen(query)

    class Embedded(Fitted):
        def predict_proba(self, X, return_embeddings=True):
            return super().predict_proba(X)

    peer = pool.Badge(clf_embedding_flag_name="return_embeddings", random_state=0)
    picks, utilities = peer.query(
        numbered(query), labels(query), Embedded(view, embed=True), fit_clf=False, batch_size=3, return_utilities=True
    )
    assert picks[0] == int(Badge().select(query, 1)[0, 0])
    g = gradients(view.phi, view.p)
    for step in (1, 2):
        from_picks = np.min([((g - g[j]) ** 2).sum(1) for j in picks[:step]], axis=0) * view.free
        ours = badge(view.phi, view.p, view.free, list(picks[:step]))
        np.testing.assert_allclose(ours, from_picks / from_picks.sum(), atol=1e-12)
        with_origin = np.minimum(from_picks, (g**2).sum(1))
        np.testing.assert_allclose(np.nan_to_num(utilities[step]), with_origin / with_origin.sum(), atol=1e-9)


def test_falcun() -> None:
    """Same u, same distances, and the same best item at first. Its probabilities are (d + u)^gamma as well, but d is
    scaled from the second pick on only, over the picked items too (so its smallest is 0), and what was scaled is
    scaled again the next time; ours scales the minima themselves over what remains, before every pick."""
    query = make_query(N=40)
    view = seen(query)
    picks, utilities = pool.Falcun(gamma=10, random_state=0).query(
        numbered(query), labels(query), Fitted(view), fit_clf=False, batch_size=3, return_utilities=True
    )
    free, p = np.flatnonzero(view.free), view.p
    u = 1 - (np.sort(p)[free, -1] - np.sort(p)[free, -2])
    d = u.copy()
    for step in range(3):
        chance = (d + u) ** 10
        chance[np.isin(free, picks[:step])] = 0
        np.testing.assert_allclose(np.nan_to_num(utilities[step][free]), chance / chance.sum(), atol=1e-9)
        remaining, value = falcun(p, view.free, list(picks[:step]))
        ours = value**10 / (value**10).sum()
        assert np.abs(ours - utilities[step][remaining]).max() > 1e-4
        d = np.minimum(d, np.abs(p[free] - p[picks[step]]).sum(1))
        d = (d - d.min()) / (d.max() - d.min())
    assert free[np.argmax(utilities[0][free])] == int(Falcun(deterministic=True).select(query, 1)[0, 0])


def test_clue(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one k-means for both: nearest item to each centroid of the entropy-weighted clusters.

    It differs where two centroids want one item: the centroid that comes first keeps it there, the closest here.
    """
    from sklearn.cluster import KMeans

    query = make_query(N=150)
    view = seen(query)

    def shared(x, k, rng, weight=None, **options):
        fitted = KMeans(k, n_init=3, random_state=0).fit(x.numpy(), sample_weight=weight.numpy())
        return SimpleNamespace(centroids=torch.from_numpy(fitted.cluster_centers_))

    monkeypatch.setattr("alfm.strategies.parts.candidates.kmeans", shared)
    ours = Clue().select(query, 6)[0].tolist()
    peer = pool.Clue(method="entropy", cluster_algo_dict={"n_init": 3, "random_state": 0}, random_state=0)
    theirs = peer.query(numbered(query), labels(query), Fitted(view, embed=True), fit_estimator=False, batch_size=6)
    assert ours == list(theirs)
