"""Make the font of the site's equations, `docs/stylesheets/mathematics.woff`, from TeX Gyre Pagella Math.

    python docs/make_math_font.py texgyrepagella-math.otf

Browsers show MathML in whatever font a system has, and one without OpenType's table of mathematics puts subscripts on
the baseline. The part of the font that equations use is a tenth of it. TeX Gyre's fonts are under the GUST Font License
(`docs/stylesheets/mathematics-license.txt`); Debian has them in the package `fonts-texgyre-math`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

TARGET = Path(__file__).parent / "stylesheets" / "mathematics.woff"
NAME = "Athlete Mathematics"
RANGES = [
    (0x20, 0x7E),
    (0xA0, 0xFF),  # Latin, with accents that stand alone
    (0x2C6, 0x2DD),
    (0x300, 0x338),  # accents
    (0x391, 0x3F5),  # Greek
    (0x2010, 0x203E),
    (0x2032, 0x2034),  # dashes, dots, primes
    (0x2061, 0x2064),  # what is not seen
    (0x2102, 0x2135),
    (0x2190, 0x21D4),  # letters like reals, arrows
    (0x2200, 0x22EF),  # operators
    (0x2308, 0x230B),
    (0x27E8, 0x27E9),  # brackets
    (0x2A7D, 0x2A7E),
    (0x1D434, 0x1D467),  # italic letters, which a lone letter in an equation is
    (0x1D49C, 0x1D4B5),  # script capitals
    (0x1D538, 0x1D551),  # double-struck capitals
    (0x1D6E2, 0x1D71B),  # italic Greek
]


def main(source: str) -> None:
    font = TTFont(source)
    options = Options(
        layout_features=["ssty", "dtls", "flac"], name_IDs=["*"], hinting=False
    )
    subsetter = Subsetter(options)
    subsetter.populate(
        unicodes=[code for first, last in RANGES for code in range(first, last + 1)]
    )
    subsetter.subset(font)
    for record in font["name"].names:
        if record.nameID in (
            1,
            3,
            4,
            6,
            16,
        ):  # the license asks that a changed font has another name
            record.string = NAME.replace(" ", "") if record.nameID == 6 else NAME
    font.flavor = "woff"
    font.save(TARGET)
    print(f"{TARGET}: {TARGET.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main(sys.argv[1])
