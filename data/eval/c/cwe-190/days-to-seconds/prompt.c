#include <limits.h>
#include <stdbool.h>

#define SECONDS_PER_DAY 86400

/* Seconds of some days (not negative) plus seconds of the day, in *result; false if an int can't hold them.
 * */
bool to_seconds(int days, int seconds, int *result)
{
