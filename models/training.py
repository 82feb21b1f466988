"""What learning needs besides a model: loss, schedules, optimizer, averages of weights.

Comes in: logits and target ids, and a TrainingConfig. Goes out: a number to minimise, and how.
Read next: learner.py for a step of learning; components/trainer.py, which puts them together with Keras `fit`.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from models.config import TrainingConfig


@tf.custom_gradient
def smoothed_cross_entropy(logits: tf.Tensor, labels: tf.Tensor, epsilon: tf.Tensor):
    """Computes cross-entropy against (1 - epsilon) one-hot + epsilon uniform, without making either (section 5.4).

    TensorFlow's fused kernel gives the loss and the gradient of the unsmoothed part in one pass; the smoothing adds
    epsilon (logit of the label - mean logit) to the one and epsilon (one-hot - 1/V) to the other.

    Args:
        logits: float32 [N, V].
        labels: int32 [N].
        epsilon: float32 scalar.
    Returns:
        float32 [N], in nats, and its gradient function.
    """
    vocab_size = tf.cast(tf.shape(logits)[1], logits.dtype)
    plain, plain_gradient = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels)
    at_label = tf.stack([tf.range(tf.shape(labels)[0]), labels], axis=1)
    loss = plain + epsilon * (tf.gather_nd(logits, at_label) - tf.reduce_mean(logits, axis=1))

    def gradient(upstream):
        smoothed = plain_gradient - epsilon / vocab_size
        smoothed = tf.tensor_scatter_nd_add(smoothed, at_label, tf.fill(tf.shape(labels), epsilon))
        return smoothed * upstream[:, tf.newaxis], None, None

    return loss, gradient


class MaskedCrossEntropy(keras.losses.Loss):
    """Label-smoothed cross-entropy, averaged over the labels that are not padding.

    Args:
        label_smoothing: the paper's epsilon (section 5.4), 0 to 1.
        pad_id: the label that does not count; one that no label has, such as -1, counts all.
        label_weights: how much each label counts, by id; none for all alike.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        pad_id: int = 0,
        label_weights: Sequence[float] = (),
        name: str = "loss",
    ):
        super().__init__(name=name, reduction=None)
        self.label_smoothing, self.pad_id, self.label_weights = label_smoothing, pad_id, tuple(label_weights)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Labels int [B, T] or [B], logits float32 [B, T, V] or [B, V] -> scalar, nats a label."""
        labels = tf.cast(y_true, tf.int32)
        return self.total(labels, y_pred) / tf.maximum(tf.reduce_sum(self.weights(labels)), 1.0)

    def total(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Adds up what `call` takes the mean of: the weighted losses of all labels, nats."""
        labels = tf.reshape(labels, [-1])
        losses = smoothed_cross_entropy(
            tf.reshape(logits, [-1, logits.shape[-1]]), labels, tf.constant(self.label_smoothing)
        )
        return tf.reduce_sum(losses * self.weights(labels))

    def weights(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns how much each label counts, float32 in the shape of the labels."""
        weights = tf.cast(labels != self.pad_id, tf.float32)
        return weights * tf.gather(tf.constant(self.label_weights), labels) if self.label_weights else weights


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """Returns a weight for each label that makes all labels count alike together, of mean 1 over the examples."""
    seen = sum(count > 0 for count in counts)
    return [sum(counts) / (seen * count) if count else 0.0 for count in counts]


class Adam(keras.optimizers.Adam):
    """Keras's Adam whose update is TensorFlow's fused kernel: one pass over memory for each weight, not ten."""

    def update_step(self, gradient, variable, learning_rate) -> None:
        """Updates one variable in place (Kingma and Ba 2015, algorithm 1)."""
        gradient = tf.convert_to_tensor(gradient)
        step = tf.cast(self.iterations + 1, tf.float32)
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class InverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """The paper's schedule (section 5.3): linear warm-up, then decay with the inverse square root of the step.

    Args:
        peak: the rate at the end of the warm-up; the paper's is (d_model * warmup_steps) ** -0.5.
        warmup_steps: steps until the peak, at least 1.
    """

    def __init__(self, peak: float, warmup_steps: int):
        super().__init__()
        self.peak, self.warmup_steps = peak, max(1, warmup_steps)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Int scalar, steps done so far -> float32 scalar."""
        ratio = tf.cast(step + 1, tf.float32) / self.warmup_steps
        return self.peak * tf.minimum(ratio, tf.math.rsqrt(ratio))

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {"peak": self.peak, "warmup_steps": self.warmup_steps}


class ForeseenCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then half a cosine down to zero at a last step that is only foreseen.

    Args:
        peak: the rate at the end of the warm-up.
        warmup_steps: steps until the peak; at most half of all.
        total_steps: float32, all that there will be; the schedule follows it.
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: tf.Variable):
        super().__init__()
        self.peak, self.warmup_steps, self.total_steps = peak, warmup_steps, total_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Int scalar, steps done so far -> float32 scalar."""
        step, warmup = tf.cast(step, tf.float32), tf.minimum(float(self.warmup_steps), self.total_steps // 2)
        done = tf.clip_by_value((step - warmup) / (self.total_steps - warmup), 0.0, 1.0)
        falling = self.peak * 0.5 * (1.0 + tf.cos(math.pi * done))
        return tf.where(step < warmup, self.peak * step / tf.maximum(warmup, 1.0), falling)

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "total_steps": float(self.total_steps)}


def make_schedule(
    config: TrainingConfig, total_steps: int | tf.Variable | None = None
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Makes the learning rate of each step: the paper's, or half a cosine down to zero at the last step.

    Args:
        config: says which.
        total_steps: all that there will be, where these are not `config.steps`; a variable where that may change.
    """
    if config.schedule == "inverse_sqrt":
        return InverseSquareRoot(config.learning_rate, config.warmup_steps)
    if isinstance(total_steps, tf.Variable):
        return ForeseenCosine(config.learning_rate, config.warmup_steps, total_steps)
    steps = total_steps or config.steps
    warmup = min(config.warmup_steps, steps // 2)
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, warmup_target=config.learning_rate, warmup_steps=warmup
    )


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Makes the layers that are built within compute in float32, bfloat16 or float16.

    It is Keras's policy of the whole process, for a model passes none on to its layers. For float16 `compile` scales
    the loss.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name if name == "float32" else f"mixed_{name}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def make_optimizer(config: TrainingConfig, total_steps: int | tf.Variable | None = None) -> keras.optimizers.Optimizer:
    """Makes the optimizer, with clipping by global norm and, where asked, a moving average of the weights.

    Args:
        config: "adam" is the paper's (section 5.3). "muon" (Jordan et al. 2024, as in Keras) makes the update of every
            matrix but the embeddings orthogonal, and uses AdamW for the rest: a step costs a tenth more, and a small
            model needs about half the steps.
        total_steps: as of `make_schedule`.
    Returns:
        A keras Optimizer.
    """
    shared = {
        "learning_rate": make_schedule(config, total_steps),
        # Of each device's share of the gradients; see learner.py.
        "global_clipnorm": config.clip_norm / tf.distribute.get_strategy().num_replicas_in_sync,
        "use_ema": config.average_decay > 0,
        "ema_momentum": config.average_decay or 0.99,
    }
    if config.optimizer == "muon":
        return keras.optimizers.Muon(adam_beta_2=config.beta_2, **shared)
    return Adam(beta_2=config.beta_2, epsilon=1e-9, **shared)


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Gives a model the moving averages of its weights for a while, where its optimizer keeps them."""
    weights = [variable.numpy() for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, weight in zip(model.trainable_variables, weights, strict=True):
            variable.assign(weight)
