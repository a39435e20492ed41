"""Next-item recommendation on MovieLens-100K beside RecBole's GRU4Rec and SASRec.

The protocol is RecBole's: 5-core, a user's last event is the test and the one before it the
validation, all items are ranked and none is masked. Its wheel carries the data, for research only:
it is read where it lies. The settings of all three are fixed, the peers' are RecBole's defaults;
the best epoch is chosen on the validation events, from which nothing is learnt. Each training has
the same one core, one after the other, and the peers a time limit. Seconds are those of training
and validation; start, data preparation and checkpoints are left out on both sides and told apart.

Nobody here rates a film twice. Our model has a learnt number for what was seen before, and so soon
knows that; the peers have none. So NDCG@10 with a user's other films left out of the ranking, which
is the default here, stands beside, without a bar. Ours also has genres, times and 200 events of
history; the peers, 50 items.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import ray
import yaml
from _bars import bar, write

from recsys.config.run import load_config
from recsys.evaluation.stage import evaluate

PEERS = ("GRU4Rec", "SASRec")
BAR_NDCG, BAR_SECONDS = 0.08, 1 / 30
CORE = 5
"""Fewest events of a user and of an item that is kept."""
REQUIREMENTS = (
    *("recbole==1.2.1", "torch==2.13.0", "ray[tune]==2.6.3", "hyperopt", "numpy<2"),
    *("pandas<2.3", "scipy<1.14", "pyarrow<17", "setuptools<80"),
)
SETTINGS: dict[str, Any] = {
    "data": {
        "events": "events.parquet",
        "columns": {"user": "user_id", "video": "video_id", "time": "time"},
        "videos": "videos.parquet",
        "video_columns": {"video": "video_id", "categories": ["genres"]},
    },
    "split": {"kind": "leave_one_out"},
    "prepare": {"partitions": 4},
    "train": {"epochs": 30, "patience": 6, "batch_timelines": 64, "refit": False, "workers": 1},
    "evaluate": {"k": [10], "mask_history": False},
}
"""Of our run; chosen by validation NDCG@10. Without refit the validation events stay unlearnt."""


def data_folder(python: Path) -> Path:
    """Where the environment's RecBole has MovieLens-100K."""
    code = "import importlib.util as u; print(u.find_spec('recbole').submodule_search_locations[0])"
    folder = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    return Path(folder.strip()) / "dataset_example" / "ml-100k"


def make_environment(folder: Path) -> Path:
    """RecBole needs older libraries than the project, and so an environment of its own."""
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        print(f"installing {REQUIREMENTS[0]} with pip into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        (folder / "done").touch()
    return python


def read(folder: Path, kind: str) -> pa.Table:
    options = pyarrow.csv.ParseOptions(delimiter="\t")
    table = pyarrow.csv.read_csv(folder / f"ml-100k.{kind}", parse_options=options)
    return table.rename_columns([name.split(":")[0] for name in table.column_names])


def core_of(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Rows that are left when users and items with too few events have gone, again and again."""
    rows = np.arange(len(users))
    while True:
        enough = np.ones(len(rows), bool)
        for column in (users, items):
            _, inverse, counts = np.unique(column[rows], return_inverse=True, return_counts=True)
            enough &= counts[inverse] >= CORE
        if enough.all():
            return rows
        rows = rows[enough]


def make_data(source: Path, target: Path) -> dict[str, Any]:
    """Writes our input, and returns what must be the same on both sides.

    RecBole scales times to 0…1 and rounds them to float32, by which neighbouring seconds become
    one, and events of one time keep the order of the file. The same order is taken here, by
    milliseconds, so that both are asked for the same items.
    """
    table = read(source, "inter")
    users, items = table["user_id"].to_numpy(), table["item_id"].to_numpy()
    rows = core_of(users, items)
    users, items, seconds = users[rows], items[rows], table["timestamp"].to_numpy()[rows]
    earliest, span = seconds.min(), np.ptp(seconds)
    scaled = ((seconds - earliest) / span).astype(np.float32)
    order = np.lexsort((scaled, users))
    users, items = users[order], items[order]
    seconds = np.rint(scaled[order].astype(np.float64) * span + earliest).astype(np.int64)
    place = np.arange(len(order))
    is_first = np.r_[True, (np.diff(users) != 0) | (np.diff(seconds) != 0)]
    since_first = place - np.maximum.accumulate(np.where(is_first, place, 0))
    columns = {"user_id": users.astype(str), "video_id": items.astype(str)}
    columns["time"] = seconds * 1000 + since_first
    pq.write_table(pa.table(columns), target / "events.parquet")
    write_videos(source, target, items)
    last = np.flatnonzero(np.r_[np.diff(users) != 0, True])
    return {
        "users": len(last),
        "items": len(np.unique(items)),
        "valid_digest": digest(users[last - 1], items[last - 1]),
        "test_digest": digest(users[last], items[last]),
    }


def write_videos(source: Path, target: Path, items: np.ndarray) -> None:
    films = read(source, "item")
    films = films.filter(np.isin(films["item_id"].to_numpy(), items))
    genres = [text.split() for text in films["class"].to_pylist()]
    columns = {"video_id": films["item_id"].cast(pa.string()), "genres": genres}
    pq.write_table(pa.table(columns), target / "videos.parquet")


def digest(users: np.ndarray, items: np.ndarray) -> str:
    """As `_recbole.py` has it."""
    pairs = sorted(f"{user} {item}" for user, item in zip(users, items, strict=True))
    return hashlib.sha256("\n".join(pairs).encode()).hexdigest()


def run_alone(command: list[Any], core: int, **options: Any) -> float:
    """Runs a command on one core with one thread; returns its seconds."""
    begin = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        check=False,
        text=True,
        **options,
    )
    if done.returncode:
        raise SystemExit(f"{command}: {done.stdout or ''}{done.stderr or ''}")
    return time.perf_counter() - begin


def run_ours(folder: Path, core: int) -> dict[str, Any]:
    """The whole chain on the data in the folder."""
    run = folder / "run"
    (folder / "run.yaml").write_text(yaml.safe_dump({"run": str(run), **SETTINGS}))
    config = ["--config", folder / "run.yaml", f"data.root={folder}"]
    command = [sys.executable, "-m", "recsys"]
    wall_s = run_alone([*command, "run", *config], core, capture_output=True)
    whole = json.loads((run / "report.json").read_text())
    test = whole["evaluation"]["model"]["all"]
    masked_test = masked_figures(folder)
    history, train_s, validate_s = [], 0.0, 0.0
    for epoch in whole["train"]["history"]:
        train_s, validate_s = train_s + epoch["epoch_s"], validate_s + epoch["validate_s"]
        sums = {"epoch": epoch["epoch"], "train_s": train_s, "validate_s": validate_s}
        history.append({**sums, "valid_ndcg@10": epoch["valid_ndcg@10"]})
    return {
        "history": history,
        "test": {
            "ndcg@10": test["ndcg@10"],
            "hr@10": test["hr@10"],
            "masked_ndcg@10": masked_test["ndcg@10"],
        },
        "ended": f"best of {len(history)} epochs: {whole['train']['epochs']}",
        "prepare_s": wall_s - train_s - validate_s,
    }


def masked_figures(folder: Path) -> dict[str, Any]:
    """The same model's with a user's other films left out; it is not trained again for them."""
    settings = [f"data.root={folder}", "evaluate.mask_history=true"]
    config = load_config(str(folder / "run.yaml"), settings)
    figures: dict[str, Any] = evaluate(config, str(folder / "masked"))["evaluation"]["model"]["all"]
    ray.shutdown()  # the peers have the machine to themselves
    return figures


def run_peers(python: Path, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Each as far as it gets; what it has reached lies beside the report after each epoch."""
    script = Path(__file__).with_name("_recbole.py")
    peers = {}
    for name in PEERS:
        out = args.out.resolve().with_name(f"movielens-{name}.json")
        command = [python, script, "--model", name, "--seconds", args.peer_seconds, "--out", out]
        run_alone(command, args.core, cwd=folder)  # where its logs and checkpoints go
        peers[name] = json.loads(out.read_text())
    return peers


def seconds_to(history: list[dict[str, Any]], ndcg: float) -> float | None:
    """Seconds of training and validation until validation NDCG@10 is reached, if it is."""
    for epoch in history:
        if epoch["valid_ndcg@10"] >= ndcg:
            return float(epoch["train_s"] + epoch["validate_s"])
    return None


def best_of(peer: dict[str, Any]) -> float:
    return max(float(epoch["valid_ndcg@10"]) for epoch in peer["history"])


def add_bars(result: dict[str, Any], ours: dict[str, Any], peers: dict[str, Any]) -> None:
    value = ours["test"]["ndcg@10"]
    bar(result, "test NDCG@10", value, BAR_NDCG, least=True)
    for name, peer in peers.items():
        theirs = peer["test"]["ndcg@10"]
        bar(result, f"test NDCG@10 over {name}'s", value, theirs, least=True)
    gru4rec = peers["GRU4Rec"]
    mine = seconds_to(ours["history"], best_of(gru4rec))
    ratio = mine and mine / (seconds_to(gru4rec["history"], best_of(gru4rec)) or 1)
    name = "seconds to GRU4Rec's best validation NDCG@10, over GRU4Rec's"
    bar(result, name, ratio, BAR_SECONDS, least=False)


def report(ours: dict[str, Any], peers: dict[str, Any], args: argparse.Namespace) -> None:
    result = {"settings": SETTINGS, "ours": ours, "peers": peers}
    if args.peers:
        result["peers_from"] = [str(path) for path in args.peers]
        print("the peers' figures are those of an earlier run")
    target = best_of(peers["GRU4Rec"])
    heads = ("test", "test", "test NDCG", "valid", "training +", "to NDCG", "start")
    units = ("NDCG@10", "HR@10", "masked", "NDCG@10", "validation", f"{target:.4f}", "etc.")
    for texts in (heads, units):
        print(" " * 10 + "".join(f"{text:>11}" for text in texts))
    for name, side in {"ours": ours, **peers}.items():
        last = side["history"][-1]
        reached = seconds_to(side["history"], target)
        test = side["test"]
        numbers = (test["ndcg@10"], test["hr@10"], test["masked_ndcg@10"], best_of(side))
        times = (last["train_s"] + last["validate_s"], reached, side["prepare_s"])
        texts = [f"{number:.4f}" for number in numbers]
        texts += ["never" if seconds is None else f"{seconds:.0f} s" for seconds in times]
        print(f"{name:10}" + "".join(f"{text:>11}" for text in texts), f" {side['ended']}")
    add_bars(result, ours, peers)
    write(result, args.out)


def require_same(data: dict[str, Any], peers: dict[str, Any]) -> None:
    """Both sides have the same users and items, and are asked for the same ones."""
    for name, peer in peers.items():
        print(f"{name}: {peer['users']} users, {peer['items']} items; ours: ", end="")
        print(f"{data['users']} users, {data['items']} items")
        if different := [key for key in data if data[key] != peer[key]]:
            raise SystemExit(f"{name} was measured on other data: {', '.join(different)} differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recbole-python", type=Path, help="instead of an environment made here")
    parser.add_argument("--peer-seconds", type=float, default=3600, help="limit of each peer")
    parser.add_argument(
        "--peers",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="files movielens-MODEL.json of an earlier run, instead of running the peers",
    )
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=Path("runs/bench/movielens.json"))
    args = parser.parse_args()
    python = args.recbole_python or make_environment(args.out.parent.resolve() / "recbole-env")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_data(data_folder(python), folder)
        ours = run_ours(folder, args.core)
        if args.peers:
            answers = [json.loads(path.read_text()) for path in args.peers]
            peers = {answer["model"]: answer for answer in answers}
        else:
            peers = run_peers(python, folder, args)
    require_same(data, peers)
    report(ours, peers, args)


if __name__ == "__main__":
    main()
