"""Draw experiments/toy/curves.svg from the logs of the shipped weights: python experiments/toy/curves.py"""

import re
from pathlib import Path

from moviegen_eval.curves import read_curves
from moviegen_eval.report.charts import curve_chart

HERE = Path(__file__).parent
SHOWN = {  # log -> charts: title, columns
    "tae": [("loss", ["train/loss"]), ("held-out PSNR in dB", ["val/psnr"])],
    "tae_people": [("held-out PSNR in dB", ["val/psnr"])],
    "t2v": [("loss", ["train/loss", "val/loss"])],
    "i2v": [("loss", ["train/loss", "val/loss"])],
    "personalize": [("loss", ["train/loss", "val/loss"])],
    "upsample": [("loss", ["train/loss", "val/loss"])],
    "edit": [("loss", ["train/loss", "val/loss"])],
    "audio_codec": [("held-out SI-SDR in dB", ["val/si_sdr"])],
    "audio": [("loss", ["train/loss", "val/loss"])],
    "sft": [("loss", ["train/loss", "val/loss"])],
}
STYLE = """
text { font: 11px sans-serif; fill: #62656d; } .title { font-weight: bold; }
.axis { stroke: #c8c9c4; fill: none; } .line { fill: none; stroke: #1f5fa8; stroke-width: 1.6; }
.second { stroke: #c2571a; stroke-dasharray: 5 3; } .key-line { fill: #1f5fa8; } .key-second { fill: #c2571a; }
"""
WIDTH, HEIGHT = 380, 230


def main() -> None:
    charts = []
    for name, wanted in SHOWN.items():
        curves = read_curves(HERE / "log" / name)
        for title, columns in wanted:
            drawn = curve_chart(title, {column: curves[column] for column in columns})
            inner = re.search(r"<svg[^>]*>(.*)</svg>", drawn, re.DOTALL)
            assert inner is not None
            place = f'<g transform="translate({WIDTH * len(charts)}, 24)">'
            charts.append(f'{place}<text class="title" x="52" y="0">{name}: {title}</text>{inner[1]}</g>')
    size = f'width="{WIDTH * len(charts)}" height="{HEIGHT}"'
    page = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>{"".join(charts)}</svg>\n'
    (HERE / "curves.svg").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
