"""What the plan says of texts that are cut and of answers that cannot be predicted."""

import re

import pytest

from clipbert_cli.errors import RecipeError
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.coverage import (
    cut_texts,
    shared_media,
    unknown_answers,
    unknown_words,
    unread_words,
)
from clipbert_cli.task.registry import task_class
from clipbert_cli.text.annotations import normal_form
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.types import Example

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c")


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return Tokenizer(tmp_path, max_length=5)


def example(*texts, target=None, context=None):
    return Example("0", "video", texts, target=target, context=context)


@pytest.mark.parametrize(
    ("examples", "says"),
    [
        ([example("a b c"), example("a b c a")], "1 of 2 training texts are longer .*, 5 tokens, .* has 6: 'a b c a'"),
        ([example("a", "b", context="a b c a")], "2 of 2 training texts .* has 7: 'a b c a a'"),
        ([example("a", "a b c", context="a b")], "1 of 2 training texts .* has 7: 'a b a b c'"),
        ([example("a " * 100)], r"the longest has 102: '(a )+a?\.\.\.'"),
        ([example("a b c a")] * 25_000, "of 8,334 training texts among 8,334 of 25,000 examples"),
    ],
)
def test_texts_that_are_cut_are_counted_with_the_longest(tokenizer, examples, says):
    (sentence,) = cut_texts(examples, tokenizer, what="training")
    assert re.search(says, sentence), sentence


def test_nothing_is_said_of_texts_that_fit(tokenizer):
    assert cut_texts([example("a b c"), example("c", context="a b")], tokenizer, what="training") == []
    assert cut_texts([], tokenizer, what="validation") == []


@pytest.mark.parametrize(
    ("examples", "says"),
    [
        ([example("a zebra"), example("b")], "1 of 2 training texts have words .* read as .UNK., such as 'zebra'$"),
        ([example("Zebra", "elk", context="gnu a")], "3 of 3 training texts .* such as 'gnu', 'Zebra', 'elk'$"),
        ([example("zebra elk gnu emu")], "such as 'zebra', 'elk', 'gnu'$"),
        ([example("a \N{CAT}")] * 25_000, "8,334 of 8,334 training texts among 8,334 of 25,000 examples .*\N{CAT}"),
    ],
)
def test_words_that_the_vocabulary_lacks_are_counted(tokenizer, examples, says):
    (sentence,) = unread_words(examples, tokenizer, what="training")
    assert re.search(says, sentence), sentence


def test_nothing_is_said_of_words_that_are_known(tokenizer):
    assert unread_words([example("a b C"), example("c", context="a b")], tokenizer, what="training") == []
    assert unread_words([], tokenizer, what="validation") == []
    assert unknown_words(["a b", ""], tokenizer) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("zebra elk", "has no word of 'zebra elk'"),
        ("a zebra, elk b", "has not 'zebra', ',', 'elk' of"),
        ("\N{CAT}", "has no word of '\N{CAT}'"),
        ("a e\u0301lan", "has not 'e\u0301lan' of"),
    ],
)
def test_unknown_words_of_a_question_are_named_as_they_are_written(tokenizer, text, says):
    (sentence,) = unknown_words([text], tokenizer)
    assert says in sentence


def task(name, answers, **objective):
    known = {answer: label for label, answer in enumerate(answers)}
    return task_class(name)(ObjectiveConfig(**objective), InferConfig(), known)


@pytest.mark.parametrize(
    ("name", "targets", "says"),
    [
        ("open_ended_qa", ["Red", "red"], "1 of 2 .* such as 'Red'; it has 'red', which objective.normalize_answers"),
        ("open_ended_qa", ["green", "pink", "red"], "2 of 3 .* such as 'green', 'pink'$"),
        ("image_qa", [{"green": 1.0}, {"green": 0.3, "red": 0.9}], "1 of 2 .* such as 'green'$"),
        ("image_qa", [{" blue": 1.0}], "1 of 1 .* such as ' blue'; it has 'blue'"),
    ],
)
def test_answers_outside_the_vocabulary_are_counted_with_examples(name, targets, says):
    examples = [example("a", target=target) for target in targets]
    (sentence,) = unknown_answers(examples, task(name, ["red", "blue"]), what="validation")
    assert re.search(says, sentence), sentence


def test_hidden_and_known_answers_are_not_counted():
    known = [example("a", target=None), example("a", target="red")]
    assert unknown_answers(known, task("open_ended_qa", ["red"]), what="validation") == []
    images = [example("a", target={}), example("a", target={"red": 0.3, "x": 1.0})]
    assert unknown_answers(images, task("image_qa", ["red"]), what="validation") == []
    choice = task_class("multiple_choice")(ObjectiveConfig(), InferConfig(), None)
    assert unknown_answers([example("a", "b", target=1)], choice, what="validation") == []


def test_media_of_validation_that_are_trained_on_are_counted():
    one, other = Example("0", "cat1", ("a",)), Example("0", "cat2", ("a",))
    assert shared_media([one], [other]) == []
    assert shared_media([one, other], []) == []
    assert shared_media([one], [one, other, one]) == [
        "1 of 2 media of validation are trained on as well, such as 'cat1'"
    ]


# ---------------------------------------------------------------------------------------------- normal forms


@pytest.mark.parametrize(
    ("answer", "form"),
    [("Red", "red"), ("  light   Blue ", "light blue"), ("Yes.", "yes"), ("no!?", "no"), ("U.S.", "u.s"), ("?", "?")],
)
def test_the_normal_form_of_an_answer(answer, form):
    assert normal_form(answer) == form
    assert normal_form(form) == form


def test_composed_and_decomposed_letters_are_the_same_answer():
    assert normal_form("Cafe\u0301") == normal_form("CAF\u00c9")


@pytest.mark.parametrize("answers", [["Red", "blue", "red"], ["yes", "Yes."], ["a  b", "a b"]])
def test_two_answers_of_one_form_are_refused(answers):
    with pytest.raises(RecipeError, match="makes equal"):
        task("open_ended_qa", answers, normalize_answers=True)


@pytest.mark.parametrize(("name", "target"), [("open_ended_qa", "red"), ("image_qa", {"red": 1.0})])
def test_predictions_are_compared_in_normal_form(name, target):
    known = example("a", target=target)
    fields = {known.key: {"answer": "Red."}}
    assert task(name, ["red"], normalize_answers=True).score(fields, [known])["accuracy"] == 100
    assert task(name, ["red"]).score(fields, [known])["accuracy"] == 0


def test_the_vocabulary_of_a_task_is_in_normal_form():
    made = task("open_ended_qa", ["Red", "Dark  Blue."], normalize_answers=True)
    assert made.answers == {"red": 0, "dark blue": 1}
    assert task("open_ended_qa", ["Red"]).answers == {"Red": 0}
