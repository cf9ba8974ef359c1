#!/bin/sh
# Prints the secrets that the manifests refer to, with random values, as YAML: for a new cluster, once.
#
#     sh infra/kubernetes/create-secrets.sh RUNS_NAMESPACE [SERVICES_NAMESPACE] | kubectl apply -f -
#
# RUNS_NAMESPACE is where Kubeflow Pipelines runs the pipelines; the services are in `raregrade`. It asks no cluster,
# and writes no file. Applied a second time it would lock the services out of what they keep: guarded in README.md.
# Of a Postgres or an S3 store of your own, give the keys in S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY.
set -eu

runs=${1:?the namespace that Kubeflow Pipelines runs the pipelines in}
services=${2:-raregrade}

random() {
    od -An -N 24 -tx1 /dev/urandom | tr -d ' \n'
}

# secret NAMESPACE NAME KEY VALUE [KEY VALUE …]; printf is part of the shell, so no value is seen in the process list.
secret() {
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %s\ntype: Opaque\nstringData:\n' "$2" "$1"
    shift 2
    while [ $# -gt 0 ]; do
        printf "  %s: '%s'\n" "$1" "$(printf %s "$2" | sed "s/'/''/g")"
        shift 2
    done
}

optuna=$(random)
s3_id=${S3_ACCESS_KEY_ID:-$(random)}
s3_key=${S3_SECRET_ACCESS_KEY:-$(random)}

secret "$services" raregrade-postgres superuser-password "$(random)" mlflow-password "$(random)" optuna-password "$optuna"
secret "$services" raregrade-mlflow-server admin-username admin admin-password "$(random)" flask-secret-key "$(random)"
secret "$services" raregrade-s3 access-key-id "$s3_id" secret-access-key "$s3_key"
secret "$services" raregrade-serving username serving password "$(random)"
# For the tasks of a run: an account of MLflow, Optuna's of Postgres, and the store that DVC's remote is in.
secret "$runs" raregrade-mlflow username pipelines password "$(random)"
secret "$runs" raregrade-optuna username optuna password "$optuna"
secret "$runs" raregrade-s3 access-key-id "$s3_id" secret-access-key "$s3_key"
