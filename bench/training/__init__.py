"""Fine-tuning: batches, the training step, prediction. A plan needs the versions alone, and none of the packages that train."""

# By engine, raised whenever a change alters the models that it trains; records without one are of version 1.
VERSIONS = {"auto": 2, "eager": 2, "graph": 2, "compile": 3}
