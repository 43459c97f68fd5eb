"""Lines of text to read, rendered here: Chinese and Latin, in four fonts, sizes, shades and some noise.

The fonts are Debian's fonts-noto-cjk. A sample is "x", the image as the recogniser takes it, and "labels",
the classes of its characters, filled up with -1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ocr import HEIGHT, WIDTH, characters
from PIL import Image, ImageDraw, ImageFilter, ImageFont

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path("/usr/share/fonts/opentype/noto")
FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJK-Bold.ttc",
    "NotoSerifCJK-Regular.ttc",
    "NotoSerifCJK-Bold.ttc",
)
LONGEST = 32
WORDS = (
    "invoice total amount due paid balance order number date time from to station gate train ticket room "
    "street road north south east west price weight height model serial made in open closed entrance exit "
    "first second third morning evening water coffee bread apple river mountain garden bridge market school"
)
SIGNS = (
    "今天天气很好我们去公园散步吃饭以后回家北京上海广州深圳南京东路中山大学图书馆请勿吸烟出口入口注意安全"
    "发票号码日期金额合计人民币元角分数量单价税率名称地址电话开户银行账号备注收款复核销售单位签字盖章"
    "高速公路服务区加油站停车场免费开放时间上午下午晚上星期一二三四五六日春夏秋冬山水花鸟鱼虫"
)


def _text(random: np.random.Generator) -> str:
    kind = random.integers(4)
    if kind == 0:
        start = random.integers(len(SIGNS) - 7)
        return SIGNS[start : start + random.integers(4, 8)]
    if kind == 1:
        return "".join(random.choice(list(SIGNS), random.integers(3, 8)))
    if kind == 2:
        return f"{random.choice(WORDS.split())} {random.integers(10_000)}.{random.integers(100):02d}"
    return " ".join(random.choice(WORDS.split(), 2))


def _image(text: str, random: np.random.Generator) -> np.ndarray[Any, Any]:
    """The line as grey values 0 to 255, [48, 320]; dark on light or the other way round."""
    path = FOLDER / FONTS[random.integers(len(FONTS))]
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: apt-get install fonts-noto-cjk")
    size = int(random.integers(24, 37))
    font = ImageFont.truetype(str(path), size, index=2)
    while font.getlength(text) > WIDTH - 8:
        size -= 1
        font = ImageFont.truetype(str(path), size, index=2)
    paper, ink = int(random.integers(170, 256)), int(random.integers(0, 90))
    if random.random() < 0.2:
        paper, ink = ink, paper
    image = Image.new("L", (WIDTH, HEIGHT), paper)
    left, top, _, bottom = font.getbbox(text)
    place = (4 - left, (HEIGHT - (bottom - top)) // 2 - top + int(random.integers(-2, 3)))
    ImageDraw.Draw(image).text(place, text, fill=ink, font=font)
    image = image.filter(ImageFilter.GaussianBlur(float(random.uniform(0, 1.1))))
    grey = np.asarray(image, np.float32) + random.normal(0, random.uniform(0, 14), (HEIGHT, WIDTH))
    return np.clip(grey, 0, 255)


def samples(count: int, seed: int) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """`count` lines; the same seed gives the same ones."""
    classes = {character: place for place, character in enumerate(characters())}
    random = np.random.default_rng(seed)
    for _ in range(count):
        text = _text(random)
        labels = np.full(LONGEST, -1, np.int32)
        labels[: len(text)] = [classes[character] for character in text]
        grey = (_image(text, random) / 127.5 - 1).astype(np.float32)
        yield {"x": np.repeat(grey[None], 3, axis=0), "labels": labels}
