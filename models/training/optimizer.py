"""Optimizers, learning-rate schedules, mixed precision and averaged weights."""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seq2serve.models.config import TrainingConfig
from seq2serve.models.transformer.layers import dtype_policy


class Adam(keras.optimizers.Adam):
    """Keras's Adam with TensorFlow's fused kernel, which passes over a weight's memory once instead of ten times.

    `earlier_steps` is the number of steps of the training whose moments it continues, see `continue_moments`.
    """

    earlier_steps = 0

    def _all_reduce_sum_gradients(self, grads_and_vars: Sequence[tuple]) -> Sequence[tuple]:
        """Returns the gradients unchanged: TrainStepMixin has added them up, and Keras would send all of them again."""
        return grads_and_vars

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
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
            lr=tf.cast(learning_rate, tf.float32) * _rate_ratio(step, self.earlier_steps, self.beta_1, self.beta_2),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class Muon(keras.optimizers.Muon):
    """Keras's Muon, whose costly part, the orthogonal directions, replicas share; each computes those of some matrices.

    `earlier_steps` is the number of steps of the training whose moments it continues.
    """

    earlier_steps = 0

    def _all_reduce_sum_gradients(self, grads_and_vars: Sequence[tuple]) -> Sequence[tuple]:
        """Returns the gradients, which are already added up; several replicas add the direction of each matrix.

        Returns:
            (gradient, variable) pairs; (tensor [2, rows, columns], variable) with gradient and direction.
        """
        replica = tf.distribute.get_replica_context()
        if replica.num_replicas_in_sync == 1:
            return grads_and_vars
        matrices = [pair for pair in grads_and_vars if self._is_matrix(pair[1])]
        owners = _owners([tuple(variable.shape) for _, variable in matrices], replica.num_replicas_in_sync)
        parts = [
            tf.cond(
                tf.equal(replica.replica_id_in_sync_group, owner),
                functools.partial(self._direction, gradient, variable),
                functools.partial(tf.zeros_like, gradient),
            )
            for (gradient, variable), owner in zip(matrices, owners, strict=True)
        ]
        directions = iter(replica.all_reduce("sum", parts))
        return [
            (tf.stack([gradient, next(directions)]) if self._is_matrix(variable) else gradient, variable)
            for gradient, variable in grads_and_vars
        ]

    def _is_matrix(self, variable: tf.Variable) -> bool:
        """Returns whether a variable is updated by Muon rather than by AdamW."""
        return self.adam_velocities[self._get_variable_index(variable)] is None

    def _direction(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
        """Returns the direction of a matrix: Nesterov's momentum, orthogonalised."""
        momentum = self.momentum * self.momentums[self._get_variable_index(variable)] + gradient
        return self.zeropower_via_newtonschulz5(gradient + self.momentum * momentum, self.ns_steps)

    def _muon_update_step(self, gradient: tf.Tensor, variable: Any, lr: tf.Tensor, m: Any) -> None:
        if len(gradient.shape) == len(variable.shape):
            super()._muon_update_step(gradient, variable, lr, m)
            return
        gradient, direction = tf.unstack(gradient)
        self.assign_add(m, gradient + m * (self.momentum - 1))
        self.assign_sub(variable, self.lr_adjust(lr * direction))

    def _adamw_update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor, m: Any, v: Any
    ) -> None:
        step = tf.cast(self.iterations + 1, tf.float32)
        ratio = _rate_ratio(step, self.earlier_steps, self.adam_beta_1, self.adam_beta_2)
        super()._adamw_update_step(gradient, variable, learning_rate * ratio, m, v)


def _owners(shapes: Sequence[tuple[int, int]], number: int) -> list[int]:
    """Returns for each matrix the replica that computes its direction, so that all of `number` replicas do as much."""
    costs = [rows * columns * min(rows, columns) for rows, columns in shapes]
    loads, owners = [0] * number, [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        owners[index] = loads.index(min(loads))
        loads[owners[index]] += costs[index]
    return owners


def _rate_ratio(step: tf.Tensor, earlier_steps: int, beta_1: float, beta_2: float) -> tf.Tensor | float:
    """Returns the factor by which Adam's bias correction differs if moments have seen `earlier_steps` more gradients.

    The correction scales the learning rate by sqrt(1 - beta_2^t) / (1 - beta_1^t) (Kingma and Ba 2015, section 2).
    """
    if not earlier_steps:
        return 1.0

    def correction(number: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(1.0 - tf.pow(beta_2, number)) / (1.0 - tf.pow(beta_1, number))

    return correction(step + float(earlier_steps)) / correction(step)


class InverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """The paper's schedule (section 5.3): linear warm-up, then decay with the inverse square root of the step.

    Args:
        peak: learning rate at the end of the warm-up; (d_model * warmup_steps) ** -0.5 in the paper.
        warmup_steps: number of steps until the peak, at least 1.
    """

    def __init__(self, peak: float, warmup_steps: int):
        super().__init__()
        self.peak, self.warmup_steps = peak, max(1, warmup_steps)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Number of completed steps, int scalar -> learning rate, float32 scalar."""
        ratio = tf.cast(step + 1, tf.float32) / self.warmup_steps
        return self.peak * tf.minimum(ratio, tf.math.rsqrt(ratio))


class AdaptiveCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then half a cosine to zero, for training whose number of steps is only estimated.

    Args:
        peak: learning rate at the end of the warm-up.
        warmup_steps: number of steps until the peak; at most half of all steps.
        total_steps: float32 scalar, the estimated number of steps. The schedule follows its current value.
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: tf.Variable):
        super().__init__()
        self.peak, self.warmup_steps, self.total_steps = peak, warmup_steps, total_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Number of completed steps, int scalar -> learning rate, float32 scalar."""
        step, warmup = tf.cast(step, tf.float32), tf.minimum(float(self.warmup_steps), self.total_steps // 2)
        progress = tf.clip_by_value((step - warmup) / (self.total_steps - warmup), 0.0, 1.0)
        falling = self.peak * 0.5 * (1.0 + tf.cos(math.pi * progress))
        return tf.where(step < warmup, self.peak * step / tf.maximum(warmup, 1.0), falling)


def make_schedule(
    config: TrainingConfig, total_steps: int | tf.Variable | None = None
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Makes the learning-rate schedule: the paper's, or half a cosine to zero at the last step.

    Args:
        config: schedule, peak and warm-up.
        total_steps: number of steps, if it is not `config.steps`; a variable if it may change.
    """
    if config.schedule == "inverse_sqrt":
        return InverseSquareRoot(config.learning_rate, config.warmup_steps)
    if isinstance(total_steps, tf.Variable):
        return AdaptiveCosine(config.learning_rate, config.warmup_steps, total_steps)
    steps = max(1, total_steps or config.steps)
    warmup = min(config.warmup_steps, steps // 2)
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, warmup_target=config.learning_rate, warmup_steps=warmup
    )


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Sets the dtype in which layers compute that are built inside the `with` block.

    With float16, `compile` adds loss scaling.

    Args:
        name: float32, bfloat16 or float16.
    """
    with dtype_policy(name if name == "float32" else f"mixed_{name}"):
        yield


def make_optimizer(config: TrainingConfig, total_steps: int | tf.Variable | None = None) -> keras.optimizers.Optimizer:
    """Makes the optimizer, with clipping by global norm and, if configured, a moving average of the weights.

    Args:
        config: "adam" is the paper's optimizer (section 5.3). "muon" (Jordan et al. 2024, as implemented in Keras)
            orthogonalises the update of every matrix except embeddings and uses AdamW for all other weights. A step
            costs 10 % more, and a small model needs about half as many steps.
        total_steps: see `make_schedule`.
    """
    shared = {
        "learning_rate": make_schedule(config, total_steps),
        "global_clipnorm": config.clip_norm,
        "use_ema": config.average_decay > 0,
        "ema_momentum": config.average_decay or 0.99,
    }
    if config.optimizer == "muon":
        return Muon(adam_beta_2=config.beta_2, **shared)
    return Adam(beta_2=config.beta_2, epsilon=1e-9, **shared)


def moments(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """Returns an optimizer's statistics of the gradients: its variables without step count and averaged weights.

    Args:
        optimizer: built; Adam or Muon of this module, possibly in Keras's LossScaleOptimizer.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    averages = getattr(inner, "_model_variables_moving_average", [])
    excluded = {id(variable) for variable in (inner.iterations, *averages)}
    return [variable for variable in inner.variables if id(variable) not in excluded]


def continue_moments(optimizer: keras.optimizers.Optimizer, values: Sequence[np.ndarray], steps: int) -> None:
    """Sets the statistics of the gradients to those of an earlier training of the same weights.

    Args:
        optimizer: of a model that has not been trained; see `moments`.
        values: those of the earlier optimizer's `moments`.
        steps: number of steps that it had made, for Adam's bias correction. The schedule does not count them.
    Raises:
        ValueError: the number or the shapes of the values differ.
    """
    variables = moments(optimizer)
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise ValueError("the optimizer has other variables")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    getattr(optimizer, "inner_optimizer", optimizer).earlier_steps = steps


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Replaces a model's weights by their moving averages inside the `with` block, if its optimizer has any."""
    weights = [variable.numpy() for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, weight in zip(model.trainable_variables, weights, strict=True):
            variable.assign(weight)
