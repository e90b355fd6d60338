import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import org.tensorflow.lite.Interpreter

/** Names what is on photographs; `model.tflite` and `labels.txt` are among the app's assets. */
class Classifier(context: Context) {
    private val labels = context.assets.open("labels.txt").bufferedReader().readLines()
    private val model = context.assets.open("model.tflite").readBytes()
    private val interpreter = Interpreter(ByteBuffer.allocateDirect(model.size).put(model))
    private val inputs = listOf(
{% for rule in inputs.values() %}
        Input({{ rule.size }}, {{ (rule.size / rule.crop_share) | int }}, "{{ rule.resize }}", {{ "true" if rule.interpolation == "bicubic" else "false" }}, listOf({{ (rule.background if rule.resize == "pad" else [0, 0, 0]) | join(", ") }})),
{% endfor %}
    )

    /** Returns the labels of an upright photograph and their probabilities, the most probable first. */
    fun classify(photo: Bitmap): List<Pair<String, Float>> {
        val pixels = IntArray(photo.width * photo.height)
        photo.getPixels(pixels, 0, photo.width, 0, 0, photo.width, photo.height)
        val each = inputs.map { it.of(pixels, photo.width, photo.height) }.toTypedArray<Any>()
        val probabilities = arrayOf(FloatArray(labels.size))
        interpreter.runForMultipleInputsOutputs(each, mapOf<Int, Any>(0 to probabilities))
        return labels.zip(probabilities[0].toList()).sortedByDescending { it.second }
    }
}
