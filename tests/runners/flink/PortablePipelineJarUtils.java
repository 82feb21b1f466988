package org.apache.beam.runners.jobsubmission;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.Message;
import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.Struct;
import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.util.JsonFormat;

/**
 * Finds the pipeline that Beam's Python FlinkRunner has put into a job's jar (its UberJarBeamJob says where).
 *
 * <p>This folder stands in for the module java-job-service of Beam, of which Beam's runner for Flink needs these three
 * types when a job comes as a jar; Maven Central, as the tests reach it, has the runner and all else, but not that module.
 */
public final class PortablePipelineJarUtils {
  private PortablePipelineJarUtils() {}

  public static String getDefaultJobName() throws IOException {
    Struct.Builder manifest = Struct.newBuilder();
    read("pipeline-manifest.json", manifest);
    return manifest.getFieldsOrThrow("defaultJobName").getStringValue();
  }

  public static RunnerApi.Pipeline getPipelineFromClasspath(String job) throws IOException {
    RunnerApi.Pipeline.Builder pipeline = RunnerApi.Pipeline.newBuilder();
    read(job + "/pipeline.json", pipeline);
    return pipeline.build();
  }

  public static Struct getPipelineOptionsFromClasspath(String job) throws IOException {
    Struct.Builder options = Struct.newBuilder();
    read(job + "/pipeline-options.json", options);
    return options.build();
  }

  private static void read(String name, Message.Builder message) throws IOException {
    ClassLoader job = Thread.currentThread().getContextClassLoader();
    try (InputStream json = job.getResourceAsStream("BEAM-PIPELINE/" + name)) {
      JsonFormat.parser().merge(new String(json.readAllBytes(), StandardCharsets.UTF_8), message);
    }
  }
}
