package org.apache.beam.runners.jobsubmission;

import org.apache.beam.model.jobmanagement.v1.JobApi;
import org.apache.beam.sdk.PipelineResult;

/** What a job gives back; see PortablePipelineJarUtils for why it is here. */
public interface PortablePipelineResult extends PipelineResult {
  JobApi.MetricResults portableMetrics();
}
