"""Lightning: ``DDPStrategy(process_group_backend=…)``, with metrics that are reduced."""

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy
from outcome import BACKEND, STEPS, batches, leave, model


class Net(lightning.LightningModule):
    """Logs a mean of floats and one of integers over all ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.net = model()

    def training_step(self, batch, index):
        inputs, targets = batch
        loss = torch.nn.functional.mse_loss(self.net(inputs), targets)
        self.log("loss", loss, sync_dist=True)
        self.log("items", torch.tensor(len(inputs)), sync_dist=True)
        return loss

    def train_dataloader(self):
        return torch.utils.data.DataLoader(batches(self.global_rank), batch_size=None)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


trainer = lightning.Trainer(
    accelerator="cpu", devices=2, strategy=DDPStrategy(process_group_backend=BACKEND),
    max_steps=STEPS, logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, use_distributed_sampler=False,
)  # fmt: skip
trainer.fit(Net())
leave(trainer.global_rank, trainer.callback_metrics["loss"].item(), lightning.__version__)
