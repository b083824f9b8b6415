"""Better weights in the same types: rounding that knows what each layer sees.

``material`` is what a model is calibrated on; ``collect`` makes an importance matrix of it.
``streams`` takes two models through it, the checkpoint and what is quantized so far; ``moments``
sums what a layer sees, ``feedback`` rounds with it, ``refine`` fits scales and moves levels over
the values that ``grids`` allow, and ``recipe`` does so for a whole model.
"""

from lfm2gguf.calibration.collect import collect_imatrix, matrix_of
from lfm2gguf.calibration.material import (
    DEFAULT_CHUNKS,
    OWN_TEXT,
    CalibrationMaterial,
    calibration_material,
)
from lfm2gguf.calibration.own_text import with_own_text
from lfm2gguf.calibration.products import products_for
from lfm2gguf.calibration.recipe import CalibratedTensor, calibrate_layers
from lfm2gguf.calibration.session import (
    Calibrated,
    CalibrationPlan,
    about,
    calibrate,
    calibrated_rows,
    check_calibrates,
    plan_calibration,
    quantized_names,
    shares,
)

__all__ = [
    "DEFAULT_CHUNKS",
    "OWN_TEXT",
    "Calibrated",
    "CalibratedTensor",
    "CalibrationMaterial",
    "CalibrationPlan",
    "about",
    "calibrate",
    "calibrate_layers",
    "calibrated_rows",
    "calibration_material",
    "check_calibrates",
    "collect_imatrix",
    "matrix_of",
    "plan_calibration",
    "products_for",
    "quantized_names",
    "shares",
    "with_own_text",
]
