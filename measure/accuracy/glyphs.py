"""Images to learn: letters and digits of the fonts that matplotlib ships, each a little moved."""

from dataclasses import dataclass
from pathlib import Path

import torch

SIZE = 16
CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VARIANTS = 9
"""Images of each character and font: of several heights, each moved by its own."""

HELD_OUT = 2
"""The last ones of these variants: only the validation sees them."""


@dataclass(frozen=True)
class Images:
    """Float images ``(count, 1, SIZE, SIZE)`` from 0 to 1, and their characters' numbers."""

    images: torch.Tensor
    labels: torch.Tensor


def load() -> tuple[Images, Images]:
    """For training and for validation; the same whenever it is called."""
    import matplotlib as mpl

    fonts = sorted(Path(mpl.get_data_path(), "fonts", "ttf").glob("*.ttf"))
    usable = [
        font
        for font in fonts
        if font.stem.startswith(("DejaVuSans", "DejaVuSerif", "STIXGeneral", "cm"))
        and not font.stem.startswith(("DejaVuSansDisplay", "DejaVuSerifDisplay"))
        and font.stem not in ("cmex10", "cmmi10", "cmsy10")
    ]
    train = _drawn(usable, range(VARIANTS - HELD_OUT))
    validation = _drawn(usable, range(VARIANTS)[-HELD_OUT:])
    # Letters move by whole pixels, so that some come to lie as before.
    seen = {each.numpy().tobytes() for each in train.images}
    new = torch.tensor([each.numpy().tobytes() not in seen for each in validation.images])
    return train, Images(validation.images[new], validation.labels[new])


def _drawn(fonts: list[Path], variants: range) -> Images:
    from PIL import Image, ImageDraw, ImageFont

    images, labels = [], []
    for place, font in enumerate(fonts):
        for variant in variants:
            generator = torch.Generator().manual_seed(1000 * place + variant)
            face = ImageFont.truetype(str(font), 11 + variant % 3)
            for label, character in enumerate(CHARACTERS):
                left, top = torch.rand(2, generator=generator).tolist()
                image = Image.new("L", (SIZE, SIZE))
                middle = (SIZE / 2 - 1.5 + 3 * left, SIZE / 2 - 1.5 + 3 * top)
                ImageDraw.Draw(image).text(middle, character, fill=255, font=face, anchor="mm")
                images.append(torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8))
                labels.append(label)
    pixels = torch.stack(images).view(-1, 1, SIZE, SIZE).float() / 255
    return Images(pixels, torch.tensor(labels))
