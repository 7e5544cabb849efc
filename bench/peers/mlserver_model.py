"""MLServer's custom runtime over onnxruntime."""

import os

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self.out = self.session.get_outputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        asked = payload.inputs[0]
        y = self.session.run(None, {asked.name: NumpyCodec.decode_input(asked)})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(self.out, y)])
