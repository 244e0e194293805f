# shellcheck shell=sh
# count_zombies.sh PID…: the number of defunct processes below each PID. Reads only, from /proc.
# PID is the first process of a container: without init it inherits orphaned processes, and never reaps them.
cat /proc/[0-9]*/stat 2>/dev/null | sed -n 's/^\([0-9]*\) (.*) \([A-Za-z]\) \([0-9]*\) .*/\1 \2 \3/p' |
  awk -v roots="$*" '
    { parent[$1] = $3; if ($2 == "Z") zombie[$1] = 1 }
    END {
      count = split(roots, root, " ")
      for (pid in zombie) {
        up = parent[pid]
        for (step = 0; step < 64 && up > 1; step++) {
          for (i = 1; i <= count; i++) if (root[i] == up) { found[up]++; step = 64 }
          up = parent[up]
        }
      }
      for (i = 1; i <= count; i++) printf "zombies\t%s %d\n", root[i], found[root[i]]
    }'
