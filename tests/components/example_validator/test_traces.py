"""Text that another program tokenised, escaped or wrongly decoded has a warning with its share and an example."""

import pytest
from tensorflow_metadata.proto.v0 import schema_pb2

from seq2serve.components.example_validator.traces import find_traces
from seq2serve.components.statistics_gen.counts import count_batch
from seq2serve.components.statistics_gen.protos import split_statistics

CLEAN = [
    'He said: "Is it 5 o\'clock?" ...',
    "Oui : c'est vrai ! Non ?",
    "AT&T, R&D & IRMÃ; NÃO, Â, 3.14, .NET (a, b).",
    "IRMÃ «GÊNIO»",
    "茶和咖啡。",
    "Is it e.g. @home, or a_b @ c?",
    "5 ' 10 \" - x",
]


def warnings(texts: list[str]) -> list[str]:
    counts = {"train": count_batch({"source": [[text.encode()] for text in texts]})}
    schema = schema_pb2.Schema(feature=[schema_pb2.Feature(name="source"), schema_pb2.Feature(name="missing")])
    (dataset,) = split_statistics("train", counts).datasets
    anomalies = list(find_traces(schema, dataset))
    assert all((anomaly.column, anomaly.severity) == ("source", "WARNING") for anomaly in anomalies)
    return [anomaly.description for anomaly in anomalies]


def test_clean_text_has_no_warning():
    assert warnings(CLEAN) == []
    assert warnings([*CLEAN, "Hello , world ."]) == []


@pytest.mark.parametrize(
    ("texts", "wording"),
    [
        (["Hello , world .", "A pre @-@ war house", "It is n't so .", "They &apos;re here"], "seem to be tokenised, "),
        (["Ein Mann .", "Er ging nach Haus ."], "seem to be tokenised, "),
        (["Tom &amp; Jerry"], "have HTML entities: 'Tom &amp; Jerry'; unescape the files"),
        (["a &lt;b&gt; c", "it&#39;s", "&quot;x&quot;", "&#x27;"], "have HTML entities: "),
        (["fÃ¼r dich", "cafÃ© crÃ¨me", "itâ€™s", "10Â€", "Â»ja"], "look like UTF-8 that was read as Windows-1252: "),
        (["gr\ufffd\ufffder"], "have U+FFFD, which replaces characters that an earlier conversion lost: "),
    ],
)
def test_text_that_another_program_changed_has_a_warning(texts, wording):
    (warning,) = [line for line in warnings(texts) if wording in line]
    assert warning.startswith("100.0% of the texts ")


def test_one_lost_character_is_enough():
    assert [line[:32] for line in warnings([*CLEAN, "\ufffd"])] == ["12.5% of the texts have U+FFFD, "]
