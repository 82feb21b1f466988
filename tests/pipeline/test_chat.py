"""Chat shows a completion piece by piece, and in the end the very one that asking once would give."""

import io

import pytest

from components.errors import UserError
from models.runtime import SavedModelRuntime
from pipeline.chat import Options, chat, stream

OPTIONS = Options(temperature=0.8, top_k=0, top_p=0.9, max_new_tokens=11, seed=5)


@pytest.fixture(scope="module")
def served(house_of):
    with SavedModelRuntime(house_of("language_model").output("Trainer", "model").path("Format-Serving")) as served:
        yield served


def sampled(served, text, seed):
    options = {"temperature": 0.8, "top_k": 0, "top_p": 0.9, "max_new_tokens": 11, "seed": seed}
    answer = served.run("sample", {"text": [text], **{name: [value] for name, value in options.items()}})
    return answer["completion"][0].decode()


def test_the_pieces_are_the_completion(served):
    pieces = list(stream(served, "Turn on the", OPTIONS))
    assert len(pieces) > 1
    assert "".join(pieces) == sampled(served, "Turn on the", 5)


def test_each_line_is_gone_on_from_and_an_empty_one_from_what_was_written(served):
    out = io.StringIO()
    chat(served, ["Open the\n", "\n", "Check\n"], out, OPTIONS)
    first = "Open the" + sampled(served, "Open the", 5)
    second = first + sampled(served, first, 6)
    assert out.getvalue() == f"{first}\n{second}\nCheck{sampled(served, 'Check', 7)}\n"


def test_a_model_that_does_not_write_is_refused(house):
    path = house.output("Trainer", "model").path("Format-Serving")
    with SavedModelRuntime(path) as translator, pytest.raises(UserError, match="no signature 'sample'"):
        chat(translator, ["a"], io.StringIO(), OPTIONS)
