"""A peer of `regraft serve`: LitServe with timm and float32, in batches, as its documentation has it.

Without postponed annotations, since LitServe reads them.
"""

import io
import sys
from typing import Any

import litserve
import torch
from fastapi import UploadFile
from PIL import Image


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        from regraft.network.workaround_torchvision_nms import import_timm

        timm = import_timm()
        self.model = timm.create_model("efficientnet_lite0", num_classes=2).eval().to(device)
        self.transform = timm.data.create_transform(
            **timm.data.resolve_model_data_config(self.model), is_training=False
        )

    def decode_request(self, request: UploadFile) -> Any:
        return self.transform(Image.open(io.BytesIO(request.file.read())).convert("RGB"))

    def batch(self, inputs: list[Any]) -> Any:
        return torch.stack(inputs)

    def predict(self, batch: Any) -> Any:
        with torch.inference_mode():
            return self.model(batch).softmax(dim=1)

    def encode_response(self, output: Any) -> list[float]:
        return output.tolist()


if __name__ == "__main__":
    api = Classifier(max_batch_size=16, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )
