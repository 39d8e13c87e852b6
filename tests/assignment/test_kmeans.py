"""k-means by torch, against scikit-learn in fp64, on a CPU and where there is one on a GPU."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, kmeans_plusplus
from torch.utils._python_dispatch import TorchDispatchMode

from bench.assignment import kmeans
from bench.assignment.clusters import nearest_rows
from bench.assignment.contextual import contextual_codes
from bench.assignment.pq import product_quantisation
from bench.assignment.residual import residual_quantisation

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def clustered(tokens: int, groups: int, width: int, spread: float = 0.01) -> np.ndarray:
    """Return points (tokens, width) around `groups` centres, well apart from each other."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((groups, width))
    points = centres[rng.integers(groups, size=tokens)] + spread * rng.standard_normal((tokens, width))
    return points.astype(np.float32)


@pytest.mark.parametrize(("rows", "weighted"), [(8, False), (60, True), (150, True)])
def test_the_start_and_the_centroids_are_scikit_learns(
    rows: int, weighted: bool, device: torch.device
) -> None:
    rng = np.random.default_rng(rows)
    points = rng.standard_normal((200 if rows == 150 else 2000, 5))
    weights = rng.uniform(0, 3, len(points)) if weighted else np.ones(len(points))
    weights[:4] = 0 if weighted else 1
    start, _ = kmeans_plusplus(points, rows, sample_weight=weights, random_state=3)
    theirs = KMeans(rows, init=start, n_init=1, max_iter=20).fit(points, sample_weight=weights)

    on_device = [torch.from_numpy(array).to(device) for array in (points, weights)]
    first = kmeans.plus_plus(*on_device, rows, seed=3)
    assert np.array_equal(first.cpu().numpy(), start)
    (ours,) = kmeans.centroids([(on_device[0], first)], on_device[1], max_iter=20)
    assert np.allclose(ours.cpu().numpy(), theirs.cluster_centers_, rtol=0, atol=1e-9)


def on(device: torch.device, *arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array).to(device) for array in arrays)


def test_centroids_without_points_move_to_the_farthest_points(device: torch.device) -> None:
    points = np.concatenate([clustered(300, 5, 3), [[9.0, 9, 9], [-9, 9, 9]]])
    start = np.concatenate([points[:5], np.full((2, 3), 1e3)])  # the last two are nobody's nearest
    theirs = KMeans(7, init=start, n_init=1, max_iter=10).fit(points)
    ours, start_, weights = on(device, points, start, np.ones(len(points)))
    other, found = kmeans.centroids([(ours, ours[:7]), (ours, start_)], weights, max_iter=10)
    assert np.allclose(found.cpu().numpy(), theirs.cluster_centers_, rtol=0, atol=1e-9)
    assert torch.equal(other, kmeans.centroids([(ours, ours[:7])], weights, max_iter=10)[0])


def test_the_centroids_are_the_same_to_the_bit_each_time_and_in_blocks_the_same_but_for_rounding(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    rng = np.random.default_rng(0)
    points, weights = on(device, rng.standard_normal((20_000, 6)), rng.uniform(0, 3, 20_000))
    sets = [(points, points[:50])]
    first, *others = (kmeans.centroids(sets, weights, max_iter=10)[0] for _ in range(3))
    assert all(torch.equal(other, first) for other in others)
    monkeypatch.setattr(kmeans, "ONE_HOT", 50 * 999)
    torch.testing.assert_close(kmeans.centroids(sets, weights, max_iter=10)[0], first, rtol=0, atol=1e-12)


class Waits(TorchDispatchMode):
    """Counts what would make the CPU wait for a GPU: reading a number, a size that the data decide, a comparison as a whole."""

    READS = ("aten._local_scalar_dense.default", "aten.nonzero.default", "aten.equal.default")
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += str(function) in self.READS
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("max_iter", [1, 40])
def test_sets_go_in_step_with_one_wait_a_round(
    max_iter: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, rng = [], np.random.default_rng(0)
    for width in (4, 3, 5):
        (points,) = on(device, rng.standard_normal((2000, width)))
        sets.append((points, points[:30]))
    weights, answers, asked = torch.ones_like(sets[0][0][:, 0]), kmeans._answers, []

    def counted(questions: list[torch.Tensor]) -> list[list[bool]]:
        asked.append(len(questions))
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        found = answers(questions)
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        return found

    def rounds(*some: tuple[torch.Tensor, torch.Tensor]) -> tuple[list[torch.Tensor], int]:
        asked.clear()
        try:
            with Waits() as waits:
                found = kmeans.centroids(some, weights, max_iter)
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        assert waits.count == 0 and asked[-1] == 0  # the last time nothing is left to ask
        return found, len(asked) - 1

    monkeypatch.setattr(kmeans, "_answers", counted)
    alone = [rounds(each) for each in sets]
    together, waits = rounds(*sets)
    assert waits == max(number for _, number in alone) <= max_iter
    for (points, start), ours, ((by_itself,), _) in zip(sets, together, alone, strict=True):
        theirs = KMeans(30, init=start.cpu().numpy(), n_init=1, max_iter=max_iter).fit(points.cpu().numpy())
        assert torch.equal(ours, by_itself)
        assert np.allclose(ours.cpu().numpy(), theirs.cluster_centers_, rtol=0, atol=1e-9)


def test_the_start_is_chosen_without_a_wait_for_each_centroid() -> None:
    points = torch.from_numpy(np.random.default_rng(0).standard_normal((500, 4)))
    with Waits() as waits:
        kmeans.plus_plus(points, torch.ones(500, dtype=torch.float64), 30, seed=0)
    assert waits.count == 0


def test_blocks_that_do_not_fit_the_memory_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    points, table = torch.randn(100, 4).double(), torch.randn(7, 4).double()
    whole, addmm = kmeans.nearest(points, table), torch.addmm

    def small(norms: torch.Tensor, part: torch.Tensor, *rest: torch.Tensor, alpha: int) -> torch.Tensor:
        if len(part) > 9:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return addmm(norms, part, *rest, alpha=alpha)

    monkeypatch.setattr(torch, "addmm", small)
    assert torch.equal(kmeans.nearest(points, table), whole)
    assert torch.equal(whole, torch.cdist(points, table).argmin(1))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "codes_of",
    [
        lambda points, *rest: product_quantisation(points, 2, 20, 0, *rest),
        lambda points, *rest: residual_quantisation(points, 1, 40, 0, *rest),
        lambda points, *rest: contextual_codes(points, 3, 20, 4, 0, *rest),
    ],
    ids=["pq", "residual", "contextual"],
)
def test_codes_of_clustered_vectors_are_those_of_the_cpu(codes_of, weighted: bool, device) -> None:
    points = clustered(3000, 40, 12)
    weights = np.random.default_rng(1).integers(0, 5, 3000).astype(np.float64) if weighted else None
    assert np.array_equal(codes_of(points, weights, device), codes_of(points, weights))


def test_the_nearest_rows_are_those_of_the_cpu(device: torch.device) -> None:
    points = np.random.default_rng(0).standard_normal((5000, 12)).astype(np.float32)
    rows = np.arange(0, 5000, 9)
    points[17] = points[9] = points[18]
    assert np.array_equal(nearest_rows(points, rows, device), nearest_rows(points, rows))
