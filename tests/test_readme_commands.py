"""Every command of a README: well formed, and tried by a test or marked with what it needs.

`TRIED` maps each line of the pages' shell blocks to how it is tried. A line that is not in it
fails, and so does an entry that no page has any more. Commands in running text are checked for
their form alone.
"""

import argparse
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from recsys.cli import main, make_parser
from recsys.config.settings import all_settings
from recsys.data.storage import read_json
from recsys.demo.viewers import WorldSettings
from recsys.serve.app import BuildArgs
from tests.conftest import SMALL, TrainedRun
from tests.inputs import write_input
from tests.readmes import ROOT, page, pages

PROGRAMS = ("make", "recsys", "ray", "serve", "python", "pip")
"""What a command in running text begins with."""
OURS = ("tests/", "examples/", "clusters/", "tuning/", "recsys/", ".fbgemm-cpu", "./.fbgemm-cpu")
"""Paths of the project's own, which must be there; others are the reader's."""


@dataclass(frozen=True)
class By:
    """A test does the same, with paths and sizes of its own."""

    test: str
    """The test's file and name."""
    text: str
    """What stands in that file and shows it."""


@dataclass(frozen=True)
class Needs:
    """No test tries it; only its form is checked."""

    what: str


class Here:
    """It is run below, as it stands."""


CI = Needs("a fresh environment: `.ci/run` does it before every merge")
BENCH = Needs("minutes to hours, and a machine that does nothing else")
NETWORK = Needs("a package index")
CLOUD = Needs("an account on AWS")
KUBERNETES = Needs("a Kubernetes cluster")
KUAIRAND = Needs("KuaiRand-Pure, and minutes; test_cli.py and test_chain.py run the same stages")
STAGE = By("tests/test_readme_commands.py::test_stages_one_by_one", "main([stage, ")
CHAIN = By("tests/conftest.py::trained_run", 'main(["run", "--config"')
WAYS = "tests/test_three_ways.py"
JOB = By(f"{WAYS}::report", "ray job submit --working-dir . -- ")
RAYS_SERVE = By(
    f"{WAYS}::test_endpoint_by_rays_command", '"serve", "run", "recsys.serve.app:build"'
)
OUR_SERVE = By(f"{WAYS}::test_endpoint_by_our_command", '["recsys", "serve", *config]')
SWEEP = By(f"{WAYS}::test_sweep", "recsys tune {config} --space tuning/spaces/quick.yaml")
LOG = By("tests/live/test_command.py::test_count_forget_and_prune", '"count", *where')
ROUTES = By("tests/serve/versions/test_versions.py::test_the_routes", '"/v1/versions/rollback"')
DECODE = By("tests/test_readme_commands.py::test_clips_of_a_folder", '"--videos"')
LOOKS = By(
    "tests/examples/test_looks.py::test_it_is_made_trained_and_looked_at", "examples/{name}/"
)

TRIED: dict[str, By | Needs | Here] = {
    # README.md
    "make demo": By("tests/test_readme_commands.py::test_demo", '["demo", "--once"'),
    "make test": CI,
    "make setup": CI,
    "make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu": NETWORK,
    "make setup EXTRAS=gpu": Needs("a CUDA machine"),
    "make demo ARGS=--once": By("tests/test_readme_commands.py::test_demo", '["demo", "--once"'),
    "make demo ARGS='--port 0'": OUR_SERVE,
    "recsys run --config run.yaml": CHAIN,
    "recsys serve --config run.yaml": OUR_SERVE,
    "recsys settings": Here(),
    "recsys settings train": Here(),
    "recsys run --config run.yaml train.epochs=3 model.dim=32": CHAIN,
    "recsys prepare --config run.yaml": STAGE,
    "recsys decode --config run.yaml": STAGE,
    "recsys train --config run.yaml": STAGE,
    "recsys evaluate --config run.yaml": STAGE,
    "recsys publish --config run.yaml": STAGE,
    "ray job submit --working-dir . -- python -m recsys run --config run.yaml": JOB,
    "serve run recsys.serve.app:build bundle=runs/mine": RAYS_SERVE,
    "recsys tune --config run.yaml --space tuning/spaces/quick.yaml tune.trials=20": SWEEP,
    "recsys evaluate --config run.yaml --against runs/other": By(
        "tests/test_readme_commands.py::test_two_runs_are_compared", '"--against"'
    ),
    "recsys refresh --config run.yaml": By(
        "tests/test_refresh.py::test_the_command_ends_with_0_whatever_it_decides",
        '["refresh", "--config"',
    ),
    # CONTRIBUTING.md, tests/
    "make lint": CI,
    "make test ARGS='tests/features -x'": CI,
    "ruff check . && ruff format --check . && mypy": CI,
    "python -m pytest tests/features": CI,
    "make test ARGS=tests/decode": CI,
    "make test ARGS='-k sampling -x'": CI,
    "make test ARGS='-m \"not ray\"'": CI,
    "python -m pytest tests/features tests/inference": CI,
    "make gpu-check": Needs("a CUDA machine"),
    "make gpu-check ARGS='--device cpu --small'": By(
        "tests/gpu/test_check.py::test_it_runs_to_its_end_on_a_cpu", '"--device"'
    ),
    "make bench": BENCH,
    "make bench NAME=decode": BENCH,
    "python tests/benchmarks/training.py --help": Here(),
    "make bench NAME=demo": BENCH,
    (
        'make bench NAME=demo ARGS=\'--worlds 0 1 2 3 4 5 6 7 --only "as it is" "no video ID"\''
    ): BENCH,
    "make bench NAME=movielens": Needs("the network, hours, and RecBole in its own environment"),
    "make bench NAME=training": BENCH,
    "make bench NAME=training ARGS='--only plain'": BENCH,
    "make bench NAME=training "
    "ARGS='--only worker --exchanges float32 bfloat16 \"average of 4\"'": BENCH,
    "make bench NAME=decode_pipeline": BENCH,
    "make bench NAME=evaluate": BENCH,
    "make bench NAME=catalogue": BENCH,
    "make bench NAME=start": BENCH,
    "make bench NAME=start ARGS='--users 200000'": BENCH,
    "make bench NAME=start ARGS='--run runs/bench/scale/500000-1000000-videos/run'": BENCH,
    "make bench NAME=scale ARGS='--sizes 500000 --videos 1000000 --steps prepare publish'": BENCH,
    "make bench NAME=catalogue ARGS='--videos 100000 --users 2000000'": BENCH,
    "make bench NAME=page": BENCH,
    "make bench NAME=page ARGS='--screenshots pictures'": BENCH,
    "make bench NAME=page ARGS='--run runs/social_feed/run --screenshots examples/pictures"
    " --views desk add'": BENCH,
    "make bench NAME=scale": BENCH,
    "make bench NAME=scale ARGS='--sizes 10000000 --steps prepare polars'": BENCH,
    "make bench NAME=scale ARGS='--sizes 100000'": BENCH,
    "make bench NAME=scale "
    "ARGS='--sizes 500000 --videos 2000000 --steps prepare publish start'": BENCH,
    "make bench NAME=uploads": BENCH,
    "make bench NAME=swaps": BENCH,
    "make bench NAME=swaps ARGS='--minutes 2.5 --every 25 --rate 40'": BENCH,
    "make bench NAME=live ARGS='--parts servers --kills 5 --seed 1'": BENCH,
    "make bench NAME=live ARGS='--only sqlite --kills 2'": BENCH,
    "make bench NAME=live ARGS='--parts follow'": BENCH,
    # tuning/
    "recsys run --config runs/mine/tune/best.yaml": By(
        f"{WAYS}::test_sweep", '"tune" / "best.yaml"'
    ),
    "recsys tune --config run.yaml --space tuning/spaces/quick.yaml --dry-run": By(
        "tests/tune/test_plan.py::test_the_plan_as_it_is_typed", '"--dry-run"'
    ),
    (
        "recsys tune --config run.yaml --space tuning/spaces/optimizer.yaml "
        "'tune.objective={valid_ndcg@10: 1, valid_creator_gini@10: -0.1}'"
    ): By(
        "tests/tune/test_tuner.py::test_the_objective_as_it_is_typed",
        "{valid_ndcg@10: 1, valid_creator_gini@10: -0.1}",
    ),
    (
        "recsys tune --config run.yaml --space tuning/spaces/population.yaml tune.scheduler=pbt "
        "tune.trials=8 train.epochs=12 tune.perturb_every=2"
    ): By(
        "tests/tune/test_sweeps.py::test_a_population_says_the_schedule_of_its_winner",
        'SPACES / "population.yaml"',
    ),
    (
        "recsys tune --config run.yaml --space tuning/spaces/rerank.yaml tune.trials=100 "
        "'tune.objective={valid_ndcg@10: 1, valid_creator_gini@10: -0.1}'"
    ): By(
        "tests/tune/test_sweeps.py::test_weights_of_the_re_ranking_are_swept_without_training",
        'SPACES / "rerank.yaml"',
    ),
    "make bench NAME=sweep": BENCH,
    "make bench NAME=sweep ARGS='--only tiny'": BENCH,
    (
        "ray job submit --working-dir . -- python -m recsys tune --config run.yaml "
        "--space tuning/spaces/quick.yaml"
    ): SWEEP,
    # examples/
    "recsys demo --once": By("tests/test_readme_commands.py::test_demo", '["demo", "--once"'),
    "pip install jupyterlab": NETWORK,
    "jupyter lab examples/notebook/events_to_recommendations.ipynb": By(
        "tests/examples/test_notebook.py::test_every_cell_runs", "events_to_recommendations.ipynb"
    ),
    "recsys decode --videos PATH/TO/videos --out runs/clips decode.features=true": DECODE,
    "python examples/clips/neighbours.py runs/clips": DECODE,
    "recsys run --config examples/kuairand/run.yaml data.root=PATH/TO/kuairand_pure": KUAIRAND,
    "recsys serve --config examples/kuairand/run.yaml data.root=PATH/TO/kuairand_pure": KUAIRAND,
    (
        "recsys run --config examples/kuairand/run.yaml data.root=PATH/TO/kuairand_pure "
        "run=runs/kuairand-no-users 'data.user_columns.features=[]'"
    ): KUAIRAND,
    "python examples/social_feed/world.py runs/social_feed": LOOKS,
    "recsys run --config examples/social_feed/run.yaml": LOOKS,
    "recsys serve --config examples/social_feed/run.yaml": OUR_SERVE,
    "python examples/video_site/world.py runs/video_site": LOOKS,
    "recsys run --config examples/video_site/run.yaml": LOOKS,
    "recsys serve --config examples/video_site/run.yaml": OUR_SERVE,
    "python examples/course_platform/world.py runs/course_platform": LOOKS,
    "recsys run --config examples/course_platform/run.yaml": LOOKS,
    "recsys serve --config examples/course_platform/run.yaml": OUR_SERVE,
    # recsys/serve/
    "curl localhost:8000/v1/versions": ROUTES,
    "curl -X POST 'localhost:8000/v1/versions/rollback?from=VERSION'": By(
        "tests/serve/versions/test_versions.py::test_a_rollback_that_a_proxy_repeats_is_done_once",
        'params={"from": NEW}',
    ),
    "curl -X POST localhost:8000/v1/versions/VERSION/activate": ROUTES,
    (
        "curl -X POST localhost:8000/v1/versions/VERSION/challenge "
        "-H 'Content-Type: application/json' -d '{\"share\": 0.1}'"
    ): ROUTES,
    "curl localhost:8000/v1/challenger": By(
        "tests/serve/versions/test_versions.py::test_what_comes_of_a_challenge_is_told",
        '"/v1/challenger"',
    ),
    "curl -X DELETE localhost:8000/v1/challenger": ROUTES,
    # recsys/live/
    "recsys events count --config run.yaml": LOG,
    "recsys events export --config run.yaml backup": By(
        "tests/live/test_command.py::test_export_and_import", '"export", *where'
    ),
    "recsys events forget --config run.yaml u1": LOG,
    "recsys events prune --config run.yaml --days 365": LOG,
    "make bench NAME=live": BENCH,
    "make bench NAME=serving": BENCH,
    "make bench NAME=serving ARGS='--seconds 3 --rounds 1'": BENCH,
    # clusters/
    "pip install boto3": NETWORK,
    "ray up clusters/aws.yaml": CLOUD,
    (
        "kubectl create secret generic recsys-secrets --from-literal=PGPASSWORD=… "
        "--from-literal=REDIS_PASSWORD=… --from-literal=RECSYS_READ_TOKEN=… "
        "--from-literal=RECSYS_EVENTS_TOKEN=… --from-literal=RECSYS_VIDEOS_TOKEN=…"
    ): KUBERNETES,
    (
        "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(kubectl get secret recsys "
        "--template={{.data.auth_token}} | base64 -d)"
    ): KUBERNETES,
    "ray dashboard clusters/aws.yaml": CLOUD,
    (
        "RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265 ray job submit --working-dir . -- python -m "
        "recsys run --config examples/kuairand/run.yaml run=s3://YOUR-BUCKET/runs/kuairand …"
    ): CLOUD,
    "ray down clusters/aws.yaml": CLOUD,
    "serve run recsys.serve.app:build bundle=runs/demo": RAYS_SERVE,
    "serve deploy clusters/serve.yaml": By(
        "tests/test_three_ways.py::test_endpoint_by_a_serve_config", "serve deploy {path}"
    ),
    (
        "RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_THROUGHPUT_OPTIMIZED=1 serve run "
        "recsys.serve.app:build bundle=runs/demo"
    ): Needs("Ray's HAProxy, which is a matter of speed alone"),
}

SHOWN = sorted({line for p in pages() for line in p.commands})
IN_TEXT = sorted(
    {span for p in pages() for span in p.spans if span.split()[0] in PROGRAMS and " " in span}
)


def test_every_command_has_its_entry_and_no_other() -> None:
    assert not set(SHOWN) - set(TRIED), "say in TRIED how it is tried, or what it needs"
    assert not set(TRIED) - set(SHOWN), "no page shows it any more"


@pytest.mark.parametrize("line", [line for line, how in TRIED.items() if isinstance(how, By)])
def test_the_tests_that_try_commands_are_there(line: str) -> None:
    how = TRIED[line]
    assert isinstance(how, By)
    name, _, function = how.test.partition("::")
    source = (ROOT / name).read_text()
    assert f"def {function}(" in source, how.test
    assert how.text in source, f"{name} does not show {line}"


@pytest.mark.parametrize("line", [line for line, how in TRIED.items() if isinstance(how, Here)])
def test_quick_commands_run_as_they_stand(line: str) -> None:
    program, *arguments = line.split()
    done = subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 5, done.stderr


@pytest.mark.parametrize("line", [*SHOWN, *IN_TEXT])
def test_commands_are_well_formed(line: str) -> None:
    for command in line.split(" && "):
        check(shlex.split(command), line)


@pytest.mark.parametrize(
    "line",
    [
        "recsys trian --config run.yaml",
        "recsys train --config run.yaml train.epoch=3",
        "recsys train --conf",
        "make benhc",
        "make bench NAME=demos",
        "make bench NAME=demo ARGS='--seed-of 3'",
        "make test ARG=x",
        "python examples/no.py",
        "serve run recsys.serve.app:built bundle=x",
        "serve run recsys.serve.app:build bundel=x",
        "ray job submit -- python -m recsys trian",
        "curl -X POST localhost:8000/v1/versions/rolback",
        "unheard of",
    ],
)
def test_a_slip_in_a_command_is_found(line: str) -> None:
    with pytest.raises((AssertionError, SystemExit, argparse.ArgumentError)):
        check(shlex.split(line), line)


def check(words: list[str], line: str) -> None:
    """Raises where a command could not be meant."""
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    for word in words:
        assert not word.startswith(OURS) or (ROOT / word).exists(), f"{line}: no {word}"
    program, rest = words[0], words[1:]
    if program == "recsys":
        check_recsys(rest, line)
    elif program == "make":
        check_make(rest, line)
    elif program == "python" and rest[:2] == ["-m", "recsys"]:
        check_recsys(rest[2:], line)
    elif program == "ray" and rest[:2] == ["job", "submit"] and "--" in rest:
        check(rest[rest.index("--") + 1 :], line)
    elif program == "serve" and rest[:1] == ["run"]:
        check_serve(rest[1:], line)
    elif program == "curl":
        check_curl(rest, line)
    else:
        known = ("python", "ray", "serve", "pip", "ruff", "mypy", "jupyter", "kubectl", "export")
        assert program in known, f"{line}: say in `check` how {program} is well formed"


def check_recsys(words: list[str], line: str) -> None:
    words = [word for word in words if word != "…"]
    if len(words) == 1 and line in IN_TEXT:  # the command's name, as in `recsys train`
        assert words[0] in make_parser().format_help(), line
        return
    arguments = make_parser().parse_args(words)
    names = {setting.name for setting in all_settings()}
    for setting in getattr(arguments, "settings", []):
        assert setting.partition("=")[0] in names, f"{line}: {setting}"


def check_curl(words: list[str], line: str) -> None:
    """The route is one that the main README names."""
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    (path,) = (word.partition("/")[2] for word in words if word.startswith("localhost:8000/"))
    route = f"{method} /{path.partition('?')[0].replace('VERSION', '{version}')}"
    assert route in page("README.md").spans, f"{line}: no {route}"


def check_make(words: list[str], line: str) -> None:
    text = (ROOT / "Makefile").read_text()
    target, *variables = words
    assert re.search(rf"^{target}:", text, re.MULTILINE), line
    given = dict(variable.split("=", 1) for variable in variables)
    for name in given:
        assert re.search(rf"^{name} \?=", text, re.MULTILINE), f"{line}: {name}"
    arguments = shlex.split(given.get("ARGS", ""))
    for word in arguments:
        assert not word.startswith(OURS) or (ROOT / word).exists(), f"{line}: no {word}"
    if target == "bench" and "NAME" in given:
        source = (ROOT / "tests/benchmarks" / f"{given['NAME']}.py").read_text
        for word in arguments:
            assert not word.startswith("--") or f'"{word}"' in source(), f"{line}: {word}"
        assert (ROOT / "tests/benchmarks" / f"{given['NAME']}.py").exists(), line


def check_serve(words: list[str], line: str) -> None:
    place, *arguments = words
    module, _, name = place.partition(":")
    assert hasattr(import_module(module), name), line
    for argument in arguments:
        assert argument.partition("=")[0] in BuildArgs.model_fields, f"{line}: {argument}"


@pytest.mark.ray
def test_stages_one_by_one(ray_local: None, tmp_path: Path) -> None:
    """Each by its own command, on a table of events without video files."""
    config = write_input(tmp_path, evaluate={"bootstrap": 0, "tradeoff_users": 0})
    for stage in ("prepare", "decode", "train", "evaluate", "publish"):
        assert main([stage, "--config", str(config)]) == 0
    assert (tmp_path / "run" / "bundles" / "CURRENT").is_file()
    assert read_json(str(tmp_path / "run" / "report.json"))["evaluation"]["model"]


@pytest.mark.ray
def test_demo(
    ray_local: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`recsys demo --once`, of the world in its smallest size."""
    monkeypatch.setattr("recsys.demo.viewers.WorldSettings", WorldSettings.tiny)
    out = tmp_path / "demo"
    assert main(["demo", "--once", "--out", str(out), *SMALL, "train.epochs=1"]) == 0
    shown = capsys.readouterr().out
    assert "is recommended" in shown
    assert (out / "report.json").is_file() and (out / "bundles" / "CURRENT").is_file()


@pytest.mark.ray
def test_clips_of_a_folder(ray_local: None, tiny_world: Path, tmp_path: Path) -> None:
    """examples/clips: features of a folder of videos, and which are most alike."""
    out = tmp_path / "clips"
    features = ["decode.features=true", "decode.frames=2", "decode.size=32"]
    videos = ["--videos", str(tiny_world / "videos"), "--out", str(out)]
    assert main(["decode", *videos, *features]) == 0
    assert (out / "clips.lance").is_dir() and (out / "quarantine.parquet").is_file()
    done = subprocess.run(
        [sys.executable, "examples/clips/neighbours.py", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 24, done.stderr
    assert all(line.count(".mp4") == 4 for line in lines), "each with the three most alike"


@pytest.mark.ray
def test_two_runs_are_compared(trained_run: TrainedRun, capsys: pytest.CaptureFixture[str]) -> None:
    """A run beside itself: no difference in anything; the run stays as it was."""
    kept = {path: path.read_bytes() for path in (trained_run.run / "evaluate").glob("report.*")}
    config = ["--config", trained_run.config_path, *trained_run.settings]
    try:
        assert main(["evaluate", *config, "--against", str(trained_run.run)]) == 0
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    shown = capsys.readouterr().out
    assert "against" in shown and "ndcg@10" in shown and "+0.0000" in shown
