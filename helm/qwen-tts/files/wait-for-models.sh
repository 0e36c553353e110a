# Waits until the model cache Job has marked every checkpoint as complete (download.py).
for name in "$@"; do
  until test -e "$HF_HOME/complete/${name/\//--}"; do
    echo "waiting for $name; the Job of the model cache downloads it"
    sleep 5
  done
done
