/* The middle of a sorted range of positions, low <= high, rounded down; both are not negative. */
int midpoint(int low, int high)
{
