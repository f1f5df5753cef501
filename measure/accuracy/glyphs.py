"""Images to learn: letters and digits of the fonts that matplotlib ships, moved and with noise."""

from dataclasses import dataclass
from pathlib import Path

import torch

SIZE = 16
CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
HELD_OUT = ("DejaVuSerif-Italic", "STIXGeneralBol", "cmss10", "DejaVuSansMono-Oblique")
"""Fonts that only the validation sees."""

VARIANTS = 6
"""Images of each character and font: of several heights, each moved by its own."""


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
    generator = torch.Generator().manual_seed(0)
    return (
        _drawn([font for font in usable if font.stem not in HELD_OUT], generator),
        _drawn([font for font in usable if font.stem in HELD_OUT], generator),
    )


def _drawn(fonts: list[Path], generator: torch.Generator) -> Images:
    from PIL import Image, ImageDraw, ImageFont

    images, labels = [], []
    for font in fonts:
        for variant in range(VARIANTS):
            face = ImageFont.truetype(str(font), 11 + variant % 3)
            for label, character in enumerate(CHARACTERS):
                left, top = torch.rand(2, generator=generator).tolist()
                image = Image.new("L", (SIZE, SIZE))
                middle = (SIZE / 2 - 1.5 + 3 * left, SIZE / 2 - 1.5 + 3 * top)
                ImageDraw.Draw(image).text(middle, character, fill=255, font=face, anchor="mm")
                images.append(torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8))
                labels.append(label)
    pixels = torch.stack(images).view(-1, 1, SIZE, SIZE).float() / 255
    return Images(
        pixels + 0.2 * torch.randn(pixels.shape, generator=generator), torch.tensor(labels)
    )
