"""Labels for every pixel: data with masks, losses, the training of a segmenter, and pictures of what it sees."""

from numbanet.segmentation.losses import dice_loss
from numbanet.segmentation.prediction import Segmentation, Segmenter, load_segmenter

__all__ = ["Segmentation", "Segmenter", "dice_loss", "load_segmenter"]
