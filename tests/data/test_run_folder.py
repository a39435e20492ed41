"""Where things lie in the run folder."""

from recsys.data.run_folder import RunFolder


def test_paths_follow_from_the_run() -> None:
    folder = RunFolder("s3://bucket/run")
    assert folder.report_of("decode") == "s3://bucket/run/decode/report.json"
    assert folder.model == "s3://bucket/run/train/model"
    assert folder.vocab("context_tab") == "s3://bucket/run/prepare/vocab/context_tab.parquet"
    assert folder.tensorboard("fit-1") == "s3://bucket/run/train/tensorboard/fit-1"
    assert folder.best_config == "s3://bucket/run/tune/best.yaml"


def test_no_two_things_lie_in_one_place() -> None:
    folder = RunFolder("run")
    paths = [
        getattr(folder, name)
        for name, kind in vars(RunFolder).items()
        if isinstance(kind, property)
    ]
    assert len(paths) > 10
    assert len(set(paths)) == len(paths)
    assert all(path.startswith("run/") for path in paths)
