# One step of the list in the workspace: `length` says how long it is, `count` how many steps were taken.
read -r length <length
count=0
[ -f count ] && read -r count <count
count=$((count + 1))
echo $count >count
if [ $count -ge $length ]; then echo "item $count: last"; else echo "item $count: more"; fi
