#include <limits.h>
#include <stdbool.h>

/* Adds an amount (positive or negative) to a balance. If an int can't hold the result, the balance stays and
 * the result is false. */
bool deposit(int *balance, int amount)
{
