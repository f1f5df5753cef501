"""transformers.Trainer: a BERT of two small layers, made from its configuration.

``ddp_backend`` cannot name wiresum on CPUs, where accelerate accepts known names only: the group is
made first, and the Trainer uses it.
"""

import torch
import torch.distributed as dist
import transformers
from outcome import BACKEND, BATCH, OUT, STEPS, leave

dist.init_process_group(BACKEND)
rank = dist.get_rank()
torch.manual_seed(0)
config = transformers.BertConfig(
    vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=16, num_labels=2,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
model = transformers.BertForSequenceClassification(config)
tokens = torch.randint(0, 32, (2 * STEPS * BATCH, 8))
data = [{"input_ids": each, "labels": each.sum() % 2} for each in tokens]
arguments = transformers.TrainingArguments(
    output_dir=f"{OUT}.{rank}", use_cpu=True, max_steps=STEPS, per_device_train_batch_size=BATCH,
    report_to=[], save_strategy="no", seed=0, disable_tqdm=True,
)  # fmt: skip
assert arguments.world_size == dist.get_world_size()
done = transformers.Trainer(model=model, args=arguments, train_dataset=data).train()
leave(rank, done.training_loss, transformers.__version__)
dist.destroy_process_group()
