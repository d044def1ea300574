"""Published dataset files to TFRecords to batches; the only room with TensorFlow."""
