"""Colours of the pictures: style -> (fill, border, text)."""
from __future__ import annotations

STYLES = {
    "feed": ("#d1fadf", "#12b76a", "#054f31"),
    "variable": ("#fef0c7", "#dc9a06", "#7a4a03"),
    "constant": ("#f2f4f7", "#98a2b3", "#475467"),
    "elementwise": ("#e0eaff", "#7a97e8", "#1d2f6f"),
    "reduce": ("#dbf4f5", "#3ba7ae", "#0b4a4f"),
    "contract": ("#ffe4d5", "#e8743b", "#7a2e0e"),
    "move": ("#ffffff", "#98a2b3", "#344054"),
    "random": ("#fce7f6", "#d36bb0", "#851651"),
    "effect": ("#fef7e0", "#dc9a06", "#7a4a03"),
    "grad": ("#ebe9fe", "#8b7cf0", "#3e1c96"),
    "plain": ("#ffffff", "#98a2b3", "#344054"),
    "region": ("#f8fafc", "#8ea0bd", "#344054"),
    "port": ("#e4e9f2", "#b6c2d6", "#475467"),
    "result": ("#344054", "#344054", "#ffffff"),
}
