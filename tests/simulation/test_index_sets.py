from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import alfm
from alfm.al_train import main
from alfm.cache.layout import FORMAT
from alfm.cache.reader import open_cache
from alfm.errors import UserError
from alfm.results.load import load_runs
from alfm.results.run_folder import read_config, read_picks
from alfm.results.setting import settings_of
from alfm.simulation.index_sets import IndexSets, read_numbers
from alfm.simulation.item_numbers import ItemNumbers

SHORT = ["iterations.n=3", "device=cpu", "seeds=[1,2]"]


def write_partition(folder: Path, seed: int = 0, items: int = 1257, labelled: int = 30, held: int = 60) -> None:
    """As TorchAL leaves them: shuffled numbers; the last seven items are in no set."""
    order = np.random.default_rng(seed).permutation(items)
    folder.mkdir(parents=True)
    np.save(folder / "lSet_DIGITS.npy", order[:labelled])
    np.save(folder / "valSet_DIGITS.npy", order[labelled : labelled + held])
    np.save(folder / "uSet_DIGITS.npy", order[labelled + held : -7])


def listed(folder: Path, stem: str) -> np.ndarray:
    (file,) = folder.glob(f"{stem}_*.npy")
    return np.load(file, allow_pickle=False)


def rows_and_metrics(folder: Path):
    frame = load_runs(folder)
    return frame[["seed", "round", "num_labeled", "accuracy", "nll", "ece", "macro_auroc"]].reset_index(drop=True)


def run(cache: Path, *words: str) -> Path:
    """The folder of a run that succeeded."""
    before = set(Path("logs").rglob("rounds.csv"))
    assert main([f"cache={cache}", *SHORT, *words]) == 0
    (made,) = set(Path("logs").rglob("rounds.csv")) - before
    return made.parent


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOG_DIR", "logs")


def test_a_run_from_torchals_files_labels_exactly_those_items(digits_cache, capsys):
    write_partition(Path("cifar/partition_1"))
    place = Path("cifar/partition_1")
    folder = run(digits_cache, "query_strategy=margins", "index_sets.folder=cifar", "index_sets.partition=1")
    out = capsys.readouterr().out
    assert "30 labelled to begin with, 60 for validation (a cost besides, not charged), 1160 to pick from" in out
    assert "Left out of the pool: 7 items in no index set" in out
    for picks in read_picks(folder).values():
        assert picks[:30].tolist() == listed(place, "lSet").tolist()
        assert set(picks[30:]) <= set(listed(place, "uSet"))
    frame = load_runs(folder)
    assert set(frame["init_strategy"]) == {"index_sets"} and set(frame["draw"]) == {"partition=1"}
    assert frame["budget"].iloc[0] == "30 given + 1 labels per class a round, 3 rounds"
    assert frame["num_labeled"].tolist()[:3] == [30, 40, 50]
    assert read_config(folder)["index_sets"]["folder"] == str(Path("cifar").absolute())


def test_a_run_writes_its_own_sets_from_which_another_begins(digits_cache):
    random = run(digits_cache, "query_strategy=random")
    for seed, picks in read_picks(random).items():
        own = random / "index_sets" / f"partition_{seed}"
        assert set(listed(own, "lSet")) == set(picks[:10]) and len(listed(own, "valSet")) == 0
        assert set(listed(own, "uSet")) == set(range(1257)) - set(picks[:10])
    again = run(
        digits_cache, "query_strategy=random", f"index_sets.folder={random}/index_sets", "index_sets.partition=2"
    )
    ours, first = rows_and_metrics(again), rows_and_metrics(random)
    same = ours[ours["seed"] == 2].reset_index(drop=True)
    assert same.equals(first[first["seed"] == 2].reset_index(drop=True))


def test_sets_of_a_run_from_files_are_those_files(digits_cache):
    write_partition(Path("parts/partition_3"))
    folder = run(digits_cache, "query_strategy=random", "index_sets.folder=parts", "index_sets.partition=3")
    for seed in (1, 2):
        for stem in ("lSet", "valSet", "uSet"):
            own = listed(folder / "index_sets" / f"partition_{seed}", stem)
            assert sorted(own) == sorted(listed(Path("parts/partition_3"), stem))


def test_several_partitions_are_one_paired_design(digits_cache, capsys):
    for partition in (1, 2):
        write_partition(Path(f"parts/partition_{partition}"), seed=partition)
    words = ["-m", f"cache={digits_cache}", *SHORT, "query_strategy=random,uherding", "index_sets.folder=parts"]
    words.append("iterations.n=2")
    assert main([*words, "index_sets.partition=1,2"]) == 0
    (setting,) = settings_of(load_runs("logs"))
    assert setting.shared["draw"].nunique() == 2
    assert setting.shared.groupby(["strategy", "draw", "seed"]).ngroups == 8
    assert not len(setting.own)
    capsys.readouterr()
    assert main([*words, "index_sets.partition=1,2"]) == 0
    assert capsys.readouterr().out.count("Already done") == 4


def test_the_same_sets_from_other_files_are_the_same_run(digits_cache, capsys):
    write_partition(Path("parts/partition_1"))
    first = run(digits_cache, "query_strategy=random", "index_sets.folder=parts", "index_sets.partition=1")
    Path("parts").rename("elsewhere")
    numbers = listed(Path("elsewhere/partition_1"), "uSet")[::-1]
    Path("elsewhere/partition_1/uSet_DIGITS.txt").write_text("\n".join(map(str, numbers)))
    Path("elsewhere/partition_1/uSet_DIGITS.npy").unlink()
    words = ["query_strategy=random", "index_sets.folder=elsewhere", "index_sets.partition=1", "budget.init=7"]
    assert main([f"cache={digits_cache}", *SHORT, *words]) == 0
    assert f"Already done: {first}" in capsys.readouterr().out
    np.save("elsewhere/partition_1/lSet_DIGITS.npy", listed(Path("elsewhere/partition_1"), "lSet")[:20])
    assert run(digits_cache, *words) != first


def test_python_and_the_command_line_agree(digits_cache):
    write_partition(Path("parts/partition_1"))
    folder = run(digits_cache, "query_strategy=margins", "index_sets.folder=parts", "index_sets.partition=1")
    sets = IndexSets(folder="parts", partition=1)
    frame = alfm.simulate(digits_cache, "margins", seeds=[1, 2], rounds=3, index_sets=sets, device="cpu")
    stored = load_runs(folder)
    names = ["draw", "conditions", "init_strategy", "init_options", "budget", "initial", "picked", "accuracy", "seed"]
    order = ["seed", "round"]
    left, right = (one.sort_values(order)[names].reset_index(drop=True) for one in (frame, stored))
    assert left.equals(right)
    task = alfm.Simulation(digits_cache, device="cpu", index_sets=sets)
    features, labels = task.held_out
    assert features.N == len(labels) == 60


def test_only_what_is_held_out_may_be_named(digits_cache):
    Path("val.csv").write_text("item\n5\n7\n11\n")
    task = alfm.Simulation(digits_cache, device="cpu", index_sets=IndexSets(validation="val.csv"))
    assert task.pool.N == 1254 and task.initial is None and not {5, 7, 11} & set(task.cache_rows)


# ---- what numbers count ----------------------------------------------------------------------------------------------


def cache_of(path: Path, ids: list[str], skipped: list[str] | None = None, ours: bool = False) -> Path:
    """Items of two classes whose features are their place."""
    with h5py.File(path, "w") as file:
        if ours:
            file.attrs["format"], file.attrs["format_version"] = FORMAT, 1
        for split, names in (("train", ids), ("test", ["test/0", "test/1"])):
            file[f"{split}/features"] = np.arange(len(names) * 2, dtype=np.float32).reshape(-1, 2)
            file[f"{split}/labels"] = np.arange(len(names)) % 2
            file[f"{split}/ids"] = np.array(names, dtype=h5py.string_dtype())
        if skipped is not None:
            file["train/skipped"] = np.array([[one, "broken"] for one in skipped], dtype=h5py.string_dtype())
    return path


def numbers_of(path: Path, counted=None) -> list[int]:
    return ItemNumbers(open_cache(path), "train", counted).numbers.tolist()


def test_left_out_items_do_not_shift_the_others():
    ids = [f"train/{number:06d}" for number in (0, 1, 3, 4, 7)]
    assert numbers_of(cache_of(Path("a.h5"), ids)) == [0, 1, 3, 4, 7]
    assert numbers_of(cache_of(Path("b.h5"), ids[::-1])) == [7, 4, 3, 1, 0]
    assert numbers_of(cache_of(Path("c.h5"), ["a/1.png", "a/3.png", "b/1.png"], ["a/2.png"])) == [0, 2, 3]
    rows = [f"table:{number}" for number in (0, 4, 6)]  # rows between them are of the test split
    assert numbers_of(cache_of(Path("d.h5"), rows, ["table:2"], ours=True)) == [0, 2, 3]
    items = ItemNumbers(open_cache(Path("c.h5")), "train")
    assert items.rows(np.array([3, 1, 0]), "x").tolist() == [2, -1, 0]
    with pytest.raises(UserError, match="x lists item 4, but the training items .* are 0 to 3"):
        items.rows(np.array([4]), "x")


def test_what_cannot_be_told_is_asked():
    path = cache_of(Path("a.h5"), ["digits/3", "digits/9", "digits/12"])
    with pytest.raises(UserError, match="numbers=rows or index_sets.numbers=ids"):
        numbers_of(path)
    assert numbers_of(path, "rows") == [0, 1, 2] and numbers_of(path, "ids") == [3, 9, 12]
    assert numbers_of(cache_of(Path("b.h5"), ["digits/3", "digits/9"], ours=True)) == [0, 1]
    with pytest.raises(UserError, match="data set does not open .* index_sets.numbers=rows"):
        numbers_of(cache_of(Path("c.h5"), ["b.png", "a.png"], ["c.png"]))
    with pytest.raises(UserError, match="do not all end in a number"):
        numbers_of(cache_of(Path("d.h5"), ["b.png", "a.png"]), "ids")


def test_items_that_the_cache_lacks_are_left_out_and_counted(capsys):
    ids = [f"train/{number:06d}" for number in range(20) if number not in (2, 5)]
    cache = cache_of(Path("a.h5"), ids, ["train/000002", "train/000005"])
    with h5py.File(cache, "r+") as file:
        labels = file["train/labels"][:]
        labels[0] = -1
        file["train/labels"][:] = labels
    Path("l.txt").write_text("0 1 2 3 4 # the first five\n")
    words = [f"cache={cache}", "iterations.n=2", "seeds=[1]", "query_strategy=random", "index_sets.labelled=l.txt"]
    assert main([*words, "budget.per_class=false"]) == 0
    out = capsys.readouterr().out
    assert "Left out: 2 items of l.txt that the cache does not hold or has no label for" in out
    (folder,) = (one.parent for one in Path("logs").rglob("rounds.csv"))
    assert read_picks(folder)[1][:3].tolist() == [1, 2, 3]  # rows of items 1, 3 and 4
    assert listed(folder / "index_sets" / "partition_1", "lSet").tolist() == [1, 3, 4]


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n2\n1\n", "lists item 1 2 times"),
        ("1\n-2\n", "lists -2: items are numbered from 0 on"),
        ("1\n2.5\n", "lists '2.5': whole numbers are needed"),
        ("1\n2\n99999\n", "lists item 99999, but the training items .* are 0 to 1256"),
        ("1\nitem\n", "lists 'item'"),
    ],
)
def test_wrong_lists_are_named(digits_cache, content, message):
    for name, text in (("l.txt", content), ("l.csv", f"item\n{content}")):
        Path(name).write_text(text)
        with pytest.raises(UserError, match=message):
            alfm.Simulation(digits_cache, device="cpu", index_sets=IndexSets(labelled=name))


def test_wrong_arrays_and_files_are_named():
    np.save("objects.npy", np.array([1, 2, 3], dtype=object), allow_pickle=True)
    np.save("floats.npy", np.array([0.5, 1.0]))
    np.save("two.npy", np.zeros((2, 2), dtype=int))
    Path("broken.npy").write_bytes(b"\x93NUMPY nothing")
    Path("table.csv").write_text("a,b\n1,2\n3,4\n")
    Path("list.json").write_text("[1, 2]")
    for name, message in (
        ("objects.npy", "pickled Python objects, which are not loaded"),
        ("floats.npy", "float64 of shape"),
        ("two.npy", r"shape \(2, 2\)"),
        ("broken.npy", "is no .npy file"),
        ("table.csv", "has 2 columns"),
        ("list.json", "read from .npy, .txt, .csv files"),
        ("nowhere.npy", "There is no nowhere.npy"),
    ):
        with pytest.raises(UserError, match=message):
            read_numbers(Path(name))
    assert read_numbers_of("1, 2;3\n4") == [1, 2, 3, 4]


def read_numbers_of(text: str) -> list[int]:
    Path("some.txt").write_text(text)
    return read_numbers(Path("some.txt")).tolist()


def test_the_remedy_for_pickled_arrays_works(tmp_path):
    import re
    import subprocess
    import sys

    np.save("lSet.npy", np.array([4, 2], dtype=object), allow_pickle=True)
    with pytest.raises(UserError) as caught:
        read_numbers(Path("lSet.npy"))
    code = re.search(r'python -c "(.*)"', str(caught.value))
    assert code is not None
    subprocess.run([sys.executable, "-c", code[1]], check=True)
    assert read_numbers(Path("lSet.npy")).tolist() == [4, 2]


def test_wrong_folders_and_sets_are_named(digits_cache):
    write_partition(Path("parts/partition_1"))
    Path("empty").mkdir()
    Path("l.txt").write_text("1 2 3")
    u = listed(Path("parts/partition_1"), "uSet")
    Path("u.txt").write_text(f"{u[0]} {u[1]}")
    for options, message in (
        ({"folder": "nowhere"}, "there is no such folder"),
        ({"folder": "parts"}, "it has partitions 1; choose with index_sets.partition=1"),
        ({"folder": "parts", "partition": 2}, "There is no parts/partition_2: it has partitions 1"),
        ({"folder": "empty"}, "holds no lSet file"),
        ({"partition": 2}, "say with index_sets.folder=FOLDER"),
        ({"folder": "parts", "partition": 1, "validation": "u.txt"}, r"both list item \d+ \(2 such items\)"),
    ):
        with pytest.raises(UserError, match=message):
            alfm.Simulation(digits_cache, device="cpu", index_sets=IndexSets(**options))
    np.save("parts/partition_1/lSet_CIFAR10.npy", np.arange(3))
    with pytest.raises(
        UserError, match=r"holds lSet_CIFAR10.npy and lSet_DIGITS.npy: say which with index_sets.labell"
    ):
        alfm.Simulation(digits_cache, device="cpu", index_sets=IndexSets(folder="parts", partition=1))
    assert main([f"cache={digits_cache}", "index_sets.labelled=l.txt", "init_strategy=typiclust"]) == 1
    with pytest.raises(UserError, match="init_strategy=typiclust and l.txt both say"):
        alfm.simulate(digits_cache, "random", init_strategy="typiclust", index_sets=IndexSets(labelled="l.txt"))


def test_an_initial_set_stays_whole_beside_paid_validation_labels(digits_cache):
    """And a query strategy that has a cold start of its own does without it."""
    Path("l.txt").write_text(" ".join(map(str, range(50))))
    words = ["query_strategy=uherding", "index_sets.labelled=l.txt", "validation.size=600", "seeds=[1]"]
    folder = run(digits_cache, *words, "iterations.n=2")
    picks, rows = read_picks(folder)[1], load_runs(folder)
    assert picks[600:650].tolist() == list(range(50)) and rows["num_filled"].tolist() == [0, 0]
    assert len(set(picks)) == 660
    assert read_config(folder)["init_strategy"] == {"_target_": "alfm.strategies.random.Random"}
    assert main([f"cache={digits_cache}", *SHORT, *words, "init_strategy=maxherding"]) == 1
    start = run(digits_cache, "query_strategy=margins", "iterations.n=1", "seeds=[1]", "init_strategy=index_file",
                f"init_strategy.path={folder}/picks.npz", "budget.init=5", "validation.size=600")  # fmt: skip
    again = read_picks(start)[1]
    assert again[600:].tolist() == list(range(50)), "a run's initial set is what it was trained on first"


def test_a_schedule_begins_with_what_is_listed(digits_cache, capsys):
    Path("l.txt").write_text(" ".join(map(str, range(45))))
    words = [f"cache={digits_cache}", *SHORT[1:], "query_strategy=random", "index_sets.labelled=l.txt"]
    assert main([*words, "budget.schedule=[10,2]"]) == 1
    said = capsys.readouterr().err
    assert "begins with 100 labels and l.txt lists 45 that the pool holds" in said and "budget.unit=labels" in said
    assert main([*words, "budget.schedule=[45,20]", "budget.unit=labels"]) == 0


def test_numbers_that_are_said_to_count_rows_are_another_run():
    ids = [f"train/{number:06d}" for number in (3, 1, 0, 2, *range(4, 20))]
    path = cache_of(Path("b.h5"), ids)
    Path("l.txt").write_text("0 1 2")
    told = [IndexSets(labelled="l.txt", numbers=how).read(open_cache(path), "train") for how in (None, "ids", "rows")]
    assert told[0].content == told[1].content != told[2].content
    assert told[0].labelled.tolist() != told[2].labelled.tolist()


def test_an_index_set_that_there_is_not_is_named(digits_cache, capsys):
    assert main([f"cache={digits_cache}", *SHORT, "+index_sets.labeled=l.txt"]) == 1
    assert "There is no setting index_sets.labeled: did you mean labelled" in capsys.readouterr().err
