from engine.predicting import load_predictor as load
from model import TASKS


def load_predictor(place, device="auto", top=1):
    return load(TASKS, place, device, top)
