import java.nio.ByteBuffer

/** Brings images to the size that the network takes, with the filter that it was trained with. */
class Input(val size: Int, val target: Int, val resize: String, val cubic: Boolean, val background: List<Int>) {

    /** Returns size * size * 3 bytes of an upright image, given as ARGB, row by row. */
    fun of(pixels: IntArray, width: Int, height: Int): ByteBuffer {
        val (newWidth, newHeight) = sides(width, height)
        val columns = (0 until size).map { filter(it, width, newWidth) }
        val narrow = Array(height) { y ->
            IntArray(3 * size) { columns[it / 3]?.level { x -> pixels[y * width + x] shr 16 - 8 * (it % 3) and 255 } ?: 0 }
        }
        val bytes = ByteBuffer.allocateDirect(3 * size * size)
        for (row in (0 until size).map { filter(it, height, newHeight) }) {
            for (i in 0 until 3 * size) {
                val inside = if (columns[i / 3] == null) null else row
                bytes.put((inside?.level { y -> narrow[y][i] } ?: background[i % 3]).toByte())
            }
        }
        return bytes.apply { rewind() }
    }

    private fun sides(width: Int, height: Int): Pair<Int, Int> {
        val short = minOf(width, height)
        val long = maxOf(width, height)
        fun padded(side: Int) = maxOf(1, Math.rint(side.toDouble() * target / long).toInt())
        return when (resize) {
            "crop" -> Pair(target * width / short, target * height / short)
            "pad" -> Pair(padded(width), padded(height))
            else -> Pair(target, target)
        }
    }

    private class Filter(val first: Int, val weights: DoubleArray) {
        inline fun level(value: (Int) -> Int): Int {
            var sum = 0.5
            for (i in weights.indices) sum += weights[i] * value(first + i)
            return sum.toInt().coerceIn(0, 255)
        }
    }

    /** Returns the filter of one pixel of the middle of a side that is resized; null outside of it. */
    private fun filter(position: Int, side: Int, newSide: Int): Filter? {
        val beyond = newSide - size
        val at = position + if (beyond >= 0) Math.rint(beyond / 2.0).toInt() else -(-beyond / 2)
        if (at !in 0 until newSide) return null
        val scale = side.toDouble() / newSide
        val width = maxOf(scale, 1.0)
        val center = scale * (at + 0.5)
        val reach = width * if (cubic) 2 else 1
        val first = maxOf(0, (center - reach + 0.5).toInt())
        val last = minOf(side, (center + reach + 0.5).toInt())
        val weights = DoubleArray(last - first) { kernel(Math.abs(first + it - center + 0.5) / width) }
        val sum = weights.sum()
        return Filter(first, DoubleArray(weights.size) { weights[it] / sum })
    }

    private fun kernel(x: Double) = when {
        !cubic -> maxOf(0.0, 1 - x)
        x < 1 -> (1.5 * x - 2.5) * x * x + 1
        x < 2 -> ((-0.5 * x + 2.5) * x - 4) * x + 2
        else -> 0.0
    }
}
