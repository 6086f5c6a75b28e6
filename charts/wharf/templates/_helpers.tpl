{{/* The first part of every object's name. */}}
{{- define "wharf.fullname" -}}
{{- .Values.fullnameOverride | default "wharf" -}}
{{- end -}}

{{- define "wharf.operator.name" -}}
{{- include "wharf.fullname" . }}-operator
{{- end -}}

{{- define "wharf.agent.name" -}}
{{- include "wharf.fullname" . }}-agent
{{- end -}}

{{/* The account of every Mirror's pods. */}}
{{- define "wharf.mirror.name" -}}
{{- include "wharf.fullname" . }}-mirror
{{- end -}}

{{- define "wharf.uninstall.name" -}}
{{- include "wharf.fullname" . }}-uninstall
{{- end -}}

{{/* The lease that the operator's replicas compete for. Its name is compiled into the program, so no value changes it. */}}
{{- define "wharf.lease.name" -}}
wharf-operator
{{- end -}}

{{/*
The namespace of the node plan. Who may write there can change every node, so it must not be shared with the pods of Wharf.
*/}}
{{- define "wharf.plan.namespace" -}}
{{- if eq .Values.nodePlan.namespace .Release.Namespace -}}
{{- fail (printf "nodePlan.namespace: %q is the release's own namespace; the node plan needs one of its own" .Release.Namespace) -}}
{{- end -}}
{{- .Values.nodePlan.namespace -}}
{{- end -}}

{{/* What a Deployment or DaemonSet selects its pods by. It must never change between versions. Usage: (list $ "operator") */}}
{{- define "wharf.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: wharf
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of a pod. Usage: (list $ "operator") */}}
{{- define "wharf.pod.labels" -}}
{{- $root := index . 0 -}}
{{ include "wharf.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: wharf
{{- end -}}

{{/* Labels of every object of this chart. Usage: (list $ "operator") */}}
{{- define "wharf.labels" -}}
{{- $root := index . 0 -}}
{{ include "wharf.pod.labels" . }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The image of the operator and the agent; a digest wins over a tag. */}}
{{- define "wharf.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Whether the metrics Services are wanted: a ServiceMonitor finds its targets through them. */}}
{{- define "wharf.metrics.service" -}}
{{- if or .Values.metrics.service.enabled .Values.metrics.serviceMonitor.enabled -}}true{{- end -}}
{{- end -}}

{{/* The agent's port for health and metrics, whose address must be one that a Service can lead to where there is a Service. */}}
{{- define "wharf.agent.health" -}}
{{- $agent := .Values.agent -}}
{{- if and (include "wharf.metrics.service" .) (eq $agent.metricsAddress "127.0.0.1") -}}
{{- fail "metrics: the agents tell theirs on 127.0.0.1 of their nodes only, where no Service leads; set agent.metricsAddress to 0.0.0.0 to open the port on the nodes' addresses" -}}
{{- end -}}
{{- printf (contains ":" $agent.metricsAddress | ternary "[%s]:%d" "%s:%d") $agent.metricsAddress (int $agent.healthPort) -}}
{{- end -}}
