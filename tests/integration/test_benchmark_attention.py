"""The benchmark of attention, on a tiny model."""

from tests.benchmarks.benchmark_attention import main


def test_it_reports_both_ways(capsys):
    tiny = {
        "rows": 2,
        "row-tokens": 64,
        "mean-tokens": 20,
        "hidden-size": 16,
        "intermediate-size": 16,
        "layers": 1,
        "heads": 2,
        "repeats": 1,
    }
    main([text for n, v in tiny.items() for text in (f"--{n}", str(v))])
    table = capsys.readouterr().out
    assert "2 rows of 64 tokens" in table
    for way in ("by document", "behind a mask"):
        seconds = table.partition(f"| {way} | ")[2].partition(" |")[0]
        assert float(seconds) > 0
