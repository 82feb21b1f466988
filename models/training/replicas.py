"""Shares of a batch for replicas: devices with a copy of the weights, on one machine or on several.

Every machine reads every batch, in the same order, and takes the rows of its own replicas. The shares of a batch have
its width, and their numbers of rows differ by at most one, so replicas take equally long.
"""

import tensorflow as tf


def shared_batches(
    batches: tf.data.Dataset, strategy: tf.distribute.Strategy
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Splits batches among the replicas of a strategy.

    Args:
        batches: an endless dataset of nested tensors [B, ...] with the same B, which may be less than the number of
            replicas: some shares are then empty.
        strategy: in which the model was made.
    Returns:
        For `fit`; of one replica, the batches unchanged.
    """
    if strategy.num_replicas_in_sync == 1:
        return batches

    def local_shares(context: tf.distribute.InputContext) -> tf.data.Dataset:
        number = context.num_replicas_in_sync // context.num_input_pipelines  # of replicas of this machine
        first = context.input_pipeline_id * number
        shares = batches.flat_map(
            lambda *batch: tf.data.Dataset.range(first, first + number).map(
                lambda replica: _share(batch, replica, context.num_replicas_in_sync)
            )
        )
        # Of an endless dataset, machines need not ask each other before each step whether there is another batch.
        return shares.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    return strategy.distribute_datasets_from_function(local_shares)


def _share(batch: tuple, replica: tf.Tensor, number: int) -> tuple:
    """Returns the rows of one of `number` replicas."""
    rows = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
    start, end = replica * rows // number, (replica + 1) * rows // number
    return tf.nest.map_structure(lambda tensor: tensor[start:end], batch)
