#!/usr/bin/env python3
"""Made the CSV files beside this script: the companies, coworkers and deals of two made-up applications.

Run it again to get the same files again, or with a folder's name to have them elsewhere. Every name is put together
from invented parts; none is meant to be that of a real person or firm.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

FIRST_COMPANY_ID = 1001
STAGES = {"open": 45, "won": 30, "lost": 25}  # in percent
OCCASIONS = ("Spring order", "Summer order", "Autumn order", "Winter order", "Frame contract", "Trial order")

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one application is made of."""

    identifier: str
    company_count: int
    deal_count: int
    coworker_ids: range
    beginnings: Sequence[str]
    endings: Sequence[str]
    trades: Sequence[str]
    places: Sequence[tuple[str, str]]
    first_names: Sequence[str]
    last_names: Sequence[str]


PLANS = (
    Plan(
        identifier="nordic-foods",
        company_count=1200,
        deal_count=2400,
        coworker_ids=range(1221, 1241),
        beginnings=("Havre", "Tranbärs", "Lingon", "Kråk", "Ljung", "Äppel", "Hjortron", "Dill", "Mås", "Rågs"),
        endings=("mora", "skogby", "hylla", "krona", "källa", "vagn", "stuga", "backa", "ö", "kvist"),
        trades=(
            *("Bageri", "Bryggeri", "Chark", "Fisk", "Frukt", "Glass", "Kafferosteri", "Kvarn", "Livs", "Mejeri"),
            *("Ost", "Saft", "Skafferi", "Spannmål"),
        ),
        places=(
            ("Göteborg", "Sweden"),
            ("Malmö", "Sweden"),
            ("Umeå", "Sweden"),
            ("Bergen", "Norway"),
            ("Tromsø", "Norway"),
            ("Aarhus", "Denmark"),
            ("Turku", "Finland"),
            ("Oulu", "Finland"),
            ("Akureyri", "Iceland"),
        ),
        first_names=("Aino", "Birk", "Eira", "Frej", "Idun", "Juho", "Liv", "Oda", "Runa", "Sixten"),
        last_names=("Havrekvist", "Lingonbacka", "Måsvik-Sten", "Tranhylla", "Ljungvagn", "Dillström-Ek"),
    ),
    Plan(
        identifier="alpine-tools",
        company_count=800,
        deal_count=1600,
        coworker_ids=range(1301, 1313),
        beginnings=("Gams", "Enzian", "Firn", "Murmel", "Zirben", "Grat", "Almrausch", "Geröll"),
        endings=("zahn", "hobel", "nagel", "zwinge", "feile", "amboss", "kurbel", "dübel"),
        trades=(
            *("Baubedarf", "Bohrer", "Eisenwaren", "Hebezeug", "Maschinen", "Messtechnik", "Sägewerk", "Schleiferei"),
            *("Schmiede", "Schrauben", "Seilwinden", "Werkbank", "Werkzeug"),
        ),
        places=(
            ("Bozen", "Italy"),
            ("Bregenz", "Austria"),
            ("Innsbruck", "Austria"),
            ("Villach", "Austria"),
            ("Chur", "Switzerland"),
            ("Thun", "Switzerland"),
            ("Kempten", "Germany"),
            ("Annecy", "France"),
        ),
        first_names=("Alma", "Beat", "Carla", "Florin", "Gritli", "Josef", "Ladina", "Vroni"),
        last_names=("Zirbenfeile", "Gratwinkler", "Murmelhofer", "Firnegger-Holz", "Enzianer"),
    ),
)


def write_application(plan: Plan, folder: Path) -> None:
    """Write one application's three files into a folder of its own."""
    # Seeded with the name, so that a change to one application leaves the other's files as they are.
    chance = random.Random(plan.identifier)
    own_folder = folder / plan.identifier
    own_folder.mkdir(parents=True, exist_ok=True)
    _write(own_folder / "coworker.csv", _coworkers(plan, chance))
    _write(own_folder / "company.csv", _companies(plan, chance))
    _write(own_folder / "deal.csv", _deals(plan, chance))


def _coworkers(plan: Plan, chance: random.Random) -> list[Row]:
    people = list(product(plan.first_names, plan.last_names))
    names = chance.sample(people, len(plan.coworker_ids))
    return [
        {"id": number, "name": f"{first} {last}"}
        for number, (first, last) in zip(plan.coworker_ids, names, strict=True)
    ]


def _companies(plan: Plan, chance: random.Random) -> list[Row]:
    firms = list(product(plan.beginnings, plan.endings, plan.trades))
    companies: list[Row] = []
    for number, (beginning, ending, trade) in enumerate(chance.sample(firms, plan.company_count), FIRST_COMPANY_ID):
        city, country = chance.choice(plan.places)
        companies.append({"id": number, "name": f"{beginning}{ending} {trade}", "city": city, "country": country})
    return companies


def _deals(plan: Plan, chance: random.Random) -> list[Row]:
    last_company_id = FIRST_COMPANY_ID + plan.company_count - 1
    return [
        {
            "id": number,
            "name": f"{chance.choice(OCCASIONS)} {chance.randint(2024, 2026)}",
            "company": chance.randint(FIRST_COMPANY_ID, last_company_id),
            "sales_representative": chance.choice(plan.coworker_ids),
            "stage": chance.choices(tuple(STAGES), tuple(STAGES.values()))[0],
            "value": 50 * chance.randint(10, 2000),
        }
        for number in range(1, plan.deal_count + 1)
    ]


def _write(path: Path, rows: Iterable[Row]) -> None:
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Write all applications' files into the given folder, or beside this script."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for plan in PLANS:
        write_application(plan, folder)


if __name__ == "__main__":
    main()
