"""Finding objects on pictures: a detector on any trunk of the zoo, its training, its data, and how it is judged."""

from numbanet.detection.average_precision import AveragePrecision, MeanAveragePrecision
from numbanet.detection.coco import CocoPictures, write_coco
from numbanet.detection.losses import detection_loss
from numbanet.detection.model import Detector, detector
from numbanet.detection.prediction import ObjectDetector, load_detector
from numbanet.detection.samples import DetectorSamples, Fitting
from numbanet.detection.selection import select
from numbanet.detection.targets import Levels

__all__ = ["AveragePrecision", "CocoPictures", "Detector", "DetectorSamples", "Fitting", "Levels", "MeanAveragePrecision", "ObjectDetector",
           "detection_loss", "detector", "load_detector", "select", "write_coco"]
