import CoreGraphics
import CoreML

/// Names what is on photographs. Xcode makes the class `model` of `model.mlpackage` once that is added to an app.
struct Classifier {
    private let network = try! model(configuration: MLModelConfiguration()).model

    /// Returns the labels of an upright photograph and their probabilities, the most probable first.
    func classify(_ photo: CGImage) throws -> [(label: String, probability: Double)] {
        let inputs = [
{% for name, rule in inputs.items() %}
{% set background = rule.background if rule.resize == "pad" else [0, 0, 0] %}
            "{{ name }}": try input(photo, "{{ name }}", size: {{ rule.size }}, target: {{ (rule.size / rule.crop_share) | int }}, background: [{{ background | join(", ") }}]),
{% endfor %}
        ]
        let output = try network.prediction(from: MLDictionaryFeatureProvider(dictionary: inputs))
        let probabilities = output.featureValue(for: "classLabel_probs")!.dictionaryValue as! [String: NSNumber]
        return probabilities.map { ($0.key, $0.value.doubleValue) }.sorted { $0.1 > $1.1 }
    }

    /// Draws the middle of the resized photograph.
    private func input(_ photo: CGImage, _ name: String, size: Int, target: Int, background: [CGFloat]) throws -> MLFeatureValue {
{% set rule = (inputs.values() | list)[0] %}
        let (width, height, side) = (CGFloat(photo.width), CGFloat(photo.height), CGFloat(size))
{% if rule.resize == "squash" %}
        let (newWidth, newHeight) = (CGFloat(target), CGFloat(target))
{% else %}
        let scale = CGFloat(target) / {{ "min" if rule.resize == "crop" else "max" }}(width, height)
        let (newWidth, newHeight) = ((width * scale).rounded(), (height * scale).rounded())
{% endif %}
        let canvas = CGContext(
            data: nil, width: size, height: size, bitsPerComponent: 8, bytesPerRow: 0,
            space: CGColorSpace(name: CGColorSpace.sRGB)!, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)!
        canvas.interpolationQuality = .high
        canvas.setFillColor(red: background[0] / 255, green: background[1] / 255, blue: background[2] / 255, alpha: 1)
        canvas.fill(CGRect(x: 0, y: 0, width: side, height: side))
        canvas.draw(photo, in: CGRect(x: (side - newWidth) / 2, y: (side - newHeight) / 2, width: newWidth, height: newHeight))
        let constraint = network.modelDescription.inputDescriptionsByName[name]!.imageConstraint!
        return try MLFeatureValue(cgImage: canvas.makeImage()!, constraint: constraint)
    }
}
