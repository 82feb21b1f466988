"""Files anywhere through one API, shards, tf.Example records and Beam pipelines."""
