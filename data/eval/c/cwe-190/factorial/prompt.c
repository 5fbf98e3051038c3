#include <limits.h>

/* n! for n >= 0, or -1 if a long can't hold it. */
long factorial(int n)
{
    long product = 1;
    for (int i = 2; i <= n; i++) {
