"""Fine-tuning: batches, the training step, prediction. A plan needs the versions alone, and none of the packages that train."""

# By engine, raised whenever a change alters the models that it trains; records without one are of version 1. `auto` and `eager` stay
# where a change concerns GPUs alone: their runs on a CPU are what they were.
VERSIONS = {"auto": 2, "eager": 2, "graph": 3, "compile": 5}
