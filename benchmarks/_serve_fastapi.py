"""A peer of `regraft serve`: FastAPI with timm and float32, as the documentation of both has it."""

from __future__ import annotations

import io
import sys

import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image

from regraft.network.workaround_torchvision_nms import import_timm

timm = import_timm()
model = timm.create_model("efficientnet_lite0", num_classes=2).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
app = FastAPI()


@app.post("/predict")
def predict(image: UploadFile) -> list[float]:
    pixels = transform(Image.open(io.BytesIO(image.file.read())).convert("RGB"))
    with torch.inference_mode():
        return model(pixels[None]).softmax(dim=1)[0].tolist()


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning")
