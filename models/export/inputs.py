"""What the signatures of all tasks share: reading texts up to a limit, and refusing wrong inputs.

A refused request fails with INVALID_ARGUMENT and a message with the name of the input. Run each check before the work:
`with tf.control_dependencies([check_rows(...), ...])`.
"""

from collections.abc import Mapping

import tensorflow as tf

from seq2serve.models.tokenizers.base import Tokenizer


def read_texts(tokenizer: Tokenizer, text: tf.Tensor, max_length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Tokenizes texts, cuts them after `max_length` tokens and appends the end marker.

    Args:
        tokenizer: of the texts.
        text: tf.string [B].
        max_length: maximum number of tokens, without the end marker.
    Returns:
        ids: int32 [B, T], padded with 0; truncated: bool [B], whether a text was cut.
    """
    ids = tokenizer.tokenize(text)
    end = tf.fill([ids.nrows(), 1], tokenizer.eos_id)
    return tf.concat([ids[:, :max_length], end], axis=1).to_tensor(), ids.row_lengths() > max_length


def check_rows(signature: str, inputs: Mapping[str, tf.Tensor]) -> tf.Operation:
    """Fails unless every input has the same number of rows.

    Otherwise a single value would be broadcast to a small batch, and rows would be paired wrongly or fail deep inside.

    Args:
        signature: its name.
        inputs: input name -> tensor [B].
    """
    rows = tf.stack([tf.size(tensor) for tensor in inputs.values()])
    message = f"{signature} needs the same number of values of each of {', '.join(inputs)}; got"
    return tf.debugging.Assert(tf.reduce_all(rows == rows[0]), [message, rows], summarize=len(inputs))


def check_values(name: str, values: tf.Tensor, is_valid: tf.Tensor, rule: str) -> tf.Operation:
    """Fails if a value of an option is invalid.

    Args:
        name: of the option.
        values: int32 or float32 [B].
        is_valid: bool [B].
        rule: what the option must be, for the message, like "at least 1".
    """
    wrong = tf.strings.as_string(tf.boolean_mask(values, ~is_valid), shortest=values.dtype.is_floating)
    # Data other than strings and int32 would make TensorFlow wrap the assertion in a function with a condition.
    return tf.debugging.Assert(tf.reduce_all(is_valid), [f"{name} must be {rule}, got", wrong])


def check_range(name: str, values: tf.Tensor, low: int, high: int) -> tf.Operation:
    """Fails if a value of an option, int32 or float32 [B], is not between two numbers, both allowed; NaN never is."""
    return check_values(name, values, (values >= low) & (values <= high), f"between {low} and {high}")
