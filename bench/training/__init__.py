"""Fine-tuning: batches, the training step, prediction."""
