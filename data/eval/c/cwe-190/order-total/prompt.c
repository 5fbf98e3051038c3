#include <limits.h>

/* Price of an order in cents: quantity times unit price, both not negative. -1 if an int can't hold it. */
int order_total(int quantity, int unit_price)
{
