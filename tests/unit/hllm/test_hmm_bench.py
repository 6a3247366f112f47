"""The benchmark runs at a tiny size, and finds both libraries in agreement."""

from tests.bench.hllm import hmm


def test_the_benchmark_runs(capsys, monkeypatch):
    monkeypatch.setenv("HLLM_ACCELERATOR", "0")
    hmm.main(["--rounds", "1", "--largest", "1000"])
    told = capsys.readouterr().out
    assert told.count("| same |") == 2
    assert "DIFFERENT" not in told
